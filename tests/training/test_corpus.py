import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.core.template import TEMPLATES
from joker.core.tokenizer import JokeTokenizer
from joker.data.prepared import PreparedData
from joker.data.shards import TokenShards
from joker.training.base import (
    END_OF_TEXT,
    as_joke_tokenizer,
    train_tokenizer,
    with_special_tokens,
)
from joker.training.corpus import CorpusConfig, build_corpus, jokes_in, open_corpus

pytestmark = pytest.mark.integration

CONFIG = CorpusConfig(
    template=TEMPLATES["original"],
    vocabulary_size=600,
    posts=frozenset({"posts"}),
    left_out=frozenset({"attic"}),
    safe=True,
)
TALE = "The lighthouse keeper wound the clock and counted the ships that had gone by."
OWN = Joke("Why did the barometer move out?", "It could not stand the pressure at home.")


@pytest.fixture(scope="module")
def texts(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of posts and tales, some of which must not be learnt."""
    folder = tmp_path_factory.mktemp("texts")
    test = prepared.jokes("test")[0].joke
    posts = [
        {"text": f"{OWN.question}\n{OWN.answer}"},
        {"text": "How do you greet a tide? You wave at it."},
        {"text": f"{test.question}\n{test.answer}"},
        {"text": "What the fuck did the cup say?\nNothing at all."},
        {"text": "Why is it dusty here?\nNobody comes.", "source": "attic"},
        {"text": "A clock walked in and struck twelve."},
    ]
    tales = [
        {"text": "\n".join([TALE * 19, f"She said: {test.question} {test.answer}", TALE * 19])},
        {"text": "A war began, and God knows who won the election. " * 3},
    ]
    for name, documents in (("posts-00", posts), ("tales-00", tales)):
        lines = "".join(json.dumps(document) + "\n" for document in documents)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def corpus(
    texts: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TokenShards, list[str]]:
    """Return the corpus made of `texts` and what was reported meanwhile."""
    lines: list[str] = []
    out = tmp_path_factory.mktemp("corpus") / "tokens"
    shards, _ = build_corpus(texts, prepared, out, CONFIG, lines.append)
    return shards, lines


def documents(shards: TokenShards, source: str) -> list[str]:
    tokenizer = JokeTokenizer.from_folder(shards.path / "tokenizer", CONFIG.template)
    stream = shards.stream(source)
    found: list[list[int]] = []
    for token in stream.read(0, len(stream)).tolist():
        if token == tokenizer.end_id:
            found.append([])
        else:
            found[-1].append(token)
    return [tokenizer.decode(ids) for ids in found]


def test_posts_that_ask_and_answer_are_laid_out_as_jokes(
    corpus: tuple[TokenShards, list[str]], prepared: PreparedData
) -> None:
    jokes = documents(corpus[0], "jokes")
    train = [CONFIG.template.render(one.joke) for one in prepared.jokes("train")]
    greeting = Joke("How do you greet a tide?", "You wave at it.")
    assert jokes[: len(train)] == train
    assert jokes[len(train) :] == [CONFIG.template.render(joke) for joke in (OWN, greeting)]
    tokenizer = JokeTokenizer.from_folder(corpus[0].path / "tokenizer", CONFIG.template)
    assert jokes_in(corpus[0], tokenizer) == [
        *(one.joke for one in prepared.jokes("train")),
        OWN,
        greeting,
    ]
    assert documents(corpus[0], "posts") == ["A clock walked in and struck twelve."]


def test_no_test_joke_is_learnt(
    corpus: tuple[TokenShards, list[str]], prepared: PreparedData
) -> None:
    test = prepared.jokes("test")[0].joke
    everything = [text for source in corpus[0].tokens for text in documents(corpus[0], source)]
    assert not any(test.answer in text for text in everything)


def test_what_is_left_out_is_counted_by_reason(corpus: tuple[TokenShards, list[str]]) -> None:
    counts = corpus[0].facts["documents"]
    assert counts["posts"]["flagged"] == 1
    assert counts["posts"]["holds a test joke"] == 1
    assert counts["posts"]["origin left out"] == 1
    assert counts["tales"]["passages that hold a test joke"] == 1


def test_tales_keep_wars_and_gods_and_are_cut_where_a_passage_is_missing(
    corpus: tuple[TokenShards, list[str]],
) -> None:
    tales = documents(corpus[0], "tales")
    assert [tale.startswith(TALE[:20]) for tale in tales] == [True, True, False]
    assert "election" in tales[2]


def test_progress_names_every_source(corpus: tuple[TokenShards, list[str]]) -> None:
    for source in ("jokes", "posts", "tales"):
        assert any(line.startswith(f"{source}: ") for line in corpus[1])


def test_nothing_but_tokens_tokenizer_and_manifest_is_left(
    corpus: tuple[TokenShards, list[str]],
) -> None:
    names = {path.name for path in corpus[0].path.iterdir()}
    shards = {f"{source}-00000.npy" for source in ("jokes", "posts", "tales")}
    assert names == {"tokenizer", "tokens.json", *shards}


def test_corpus_opens_again_only_for_what_it_was_made_of(
    corpus: tuple[TokenShards, list[str]], prepared: PreparedData
) -> None:
    shards, tokenizer = open_corpus(corpus[0].path, prepared, CONFIG)
    assert shards == corpus[0]
    assert tokenizer.eos_token == END_OF_TEXT
    open_corpus(corpus[0].path, prepared, replace(CONFIG, characters={"tales": 10}))
    with pytest.raises(DataError, match="another vocabulary size"):
        open_corpus(corpus[0].path, prepared, replace(CONFIG, vocabulary_size=700))


def test_a_tokenizer_that_is_given_encodes_and_none_is_learnt(
    corpus: tuple[TokenShards, list[str]], texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    _, own = open_corpus(corpus[0].path, prepared, CONFIG)
    shards, _ = build_corpus(texts, prepared, tmp_path / "tokens", CONFIG, lambda _: None, own)
    assert documents(shards, "tales") == documents(corpus[0], "tales")
    open_corpus(shards.path, prepared, replace(CONFIG, vocabulary_size=599), own)
    other = with_special_tokens(train_tokenizer([TALE] * 9, 600), CONFIG.template)
    with pytest.raises(DataError, match="another tokenizer"):
        open_corpus(shards.path, prepared, CONFIG, other)


def test_documents_end_with_a_token_of_its_own_where_it_is_not_the_first_one(
    corpus: tuple[TokenShards, list[str]], texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    _, own = open_corpus(corpus[0].path, prepared, CONFIG)
    own.add_special_tokens({"bos_token": "<|start|>"})
    shards, _ = build_corpus(texts, prepared, tmp_path / "tokens", CONFIG, lambda _: None, own)
    tokenizer = as_joke_tokenizer(own, CONFIG.template)
    tokens = shards.stream("tales").read(0, shards.tokens["tales"])
    starts, ends = (np.flatnonzero(tokens == i) for i in (tokenizer.start_id, tokenizer.end_id))
    assert starts.tolist() == [0, *(ends[:-1] + 1)]
    jokes = [one.joke for one in prepared.jokes("train")]
    assert jokes_in(shards, tokenizer)[: len(jokes)] == jokes


def test_a_corpus_made_before_a_setting_was_known_is_refused_by_its_name(
    corpus: tuple[TokenShards, list[str]], prepared: PreparedData, tmp_path: Path
) -> None:
    facts = json.loads((corpus[0].path / "tokens.json").read_text())
    del facts["facts"]["settings"]["distinct"]
    (tmp_path / "tokens.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="another distinct"):
        open_corpus(tmp_path, prepared, CONFIG)


def test_of_jokes_and_posts_told_again_the_first_is_read(
    prepared: PreparedData, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    known = prepared.jokes("train")[0].joke
    posts = [
        f"{known.question.upper()}\n{known.answer}",
        f"{OWN.question}\n{OWN.answer}",
        f"{OWN.question}\n{OWN.answer[:-1]}, and so it went!",
        "A clock walked in and struck twelve.",
        "A clock walked in, and struck twelve!",
        "A kettle sang until nobody listened any more.",
    ]
    lines = "".join(json.dumps({"text": post}) + "\n" for post in posts)
    (texts / "posts-00.jsonl").write_text(lines)
    distinct = replace(CONFIG, distinct=True)
    shards, _ = build_corpus(texts, prepared, tmp_path / "tokens", distinct, lambda _: None)
    train = prepared.jokes("train")
    firsts = {one.cluster: one.joke for one in reversed(train)}
    learnt = [*(one.joke for one in train if firsts[one.cluster] == one.joke), OWN]
    assert documents(shards, "jokes") == [CONFIG.template.render(joke) for joke in learnt]
    assert documents(shards, "posts") == [posts[3], posts[5]]
    counts = shards.facts["documents"]
    assert counts["jokes"]["near-copies of others"] == len(train) + 3 - len(learnt)
    assert counts["posts"]["near-copies of others"] == 1


def test_sources_outside_the_mixture_are_not_read(
    texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    config = replace(CONFIG, characters={"tales": 100, "jokes": 1})
    shards, _ = build_corpus(texts, prepared, tmp_path / "tokens", config, lambda _: None)
    assert set(shards.tokens) == {"jokes", "tales"}
    open_corpus(shards.path, prepared, replace(config, characters={"tales": 99, "jokes": 10**9}))
    with pytest.raises(DataError, match="another amount of text"):
        open_corpus(shards.path, prepared, replace(config, characters={"tales": 101}))
