from pathlib import Path

import pytest

from joker.core.errors import ModelFolderError
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES
from joker.training.base import SIZES, open_base, set_dropout, train_tokenizer

TEXTS = ["Why did the bicycle lie down? It was two tired."] * 20


def test_a_base_from_scratch_has_its_shape_and_the_layouts_tokens() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS)
    assert base.context_length == SIZES["tiny"]["n_positions"]
    encoded = base.joke_tokenizer.encode(Joke("Why did it?", "It was."))
    for marker in TEMPLATES["original"].special_tokens:
        assert encoded.input_ids.count(base.joke_tokenizer.backend.token_to_id(marker)) == 1


def test_a_folder_is_a_base_and_its_embeddings_grow_for_new_markers(
    tiny_folder: ModelFolder,
) -> None:
    base = open_base(str(tiny_folder.path), TEMPLATES["separator"], [])
    rows = len(base.model.get_input_embeddings().weight)  # type: ignore[arg-type]
    assert rows >= len(base.tokenizer)
    joke = Joke("Why did it?", "It was.")
    assert base.joke_tokenizer.parse(base.joke_tokenizer.encode(joke).input_ids) == joke


def test_embeddings_are_rounded_up_where_asked() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS, round_up_to=100)
    # The size has 1,024 entries, which is no multiple of 100.
    assert base.model.config.vocab_size == 1100


@pytest.mark.parametrize("text", ["naïve café", "日本", "🙂 \n\t tabs", "\x00"])
def test_a_trained_tokenizer_loses_no_byte(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_dropout_is_set_everywhere() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS)
    set_dropout(base.model, 0.25)
    shares = {m.p for m in base.model.modules() if type(m).__name__ == "Dropout"}
    assert shares == {0.25}


def test_an_unknown_size_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelFolderError, match="choose tiny"):
        open_base("new:huge", TEMPLATES["original"], [])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="cannot load the base model"):
        open_base(str(tmp_path), TEMPLATES["original"], [])
