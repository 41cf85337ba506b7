"""Pretraining: a folder of texts and prepared jokes in, a model folder out.

A GPT-2 from random weights, or a causal LM that is there already, reads general text mixed
with jokes; `joker.training.finetune` goes on from there. The corpus (`joker.training.corpus`)
is made once and can be kept for further runs; the order of rows is
`joker.training.mixture`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments, set_seed

from joker.core.errors import ConfigError
from joker.core.model_folder import Manifest, ModelFolder
from joker.data.prepared import PreparedData
from joker.data.shards import MANIFEST, TokenShards
from joker.training.base import (
    Base,
    earlier_trainings,
    fingerprints_with,
    make_base,
    new_shape,
    open_base,
    set_dropout,
    stack_blocks,
)
from joker.training.callbacks import latest_checkpoint
from joker.training.corpus import CorpusConfig, build_corpus, jokes_in, open_corpus
from joker.training.machine import (
    keep_freed_memory,
    quiet_libraries,
    resolve_compile,
    resolve_precision,
    translate_resource_errors,
)
from joker.training.mixture import MixedRows, make_plan
from joker.training.muon import MuonWithAdamW
from joker.training.pretraining_config import PretrainingConfig, parse_shares
from joker.training.run import Run, begin_run, resume_run
from joker.training.session import Session, trainer_settings, write_folder
from joker.training.trainer import JokeTrainer, prepare_for_packed_rows

_CHARACTERS_PER_TOKEN = 5
"""More than any source has, so that enough text is kept for every token of the budget."""

logger = logging.getLogger(__name__)


def pretrain(
    texts: Path,
    data: PreparedData,
    out: Path,
    config: PretrainingConfig,
    *,
    tokens: Path | None = None,
    resume: bool = False,
    alias: str = "pretrained",
    report: Callable[[str], None] = logger.info,
) -> ModelFolder | None:
    """Train a model on texts and jokes and write a model folder.

    Args:
        texts: Folder of texts.
        data: Prepared jokes; the training split is learnt, the test split kept out of everything.
        out: The model folder to make.
        config: The settings; a resumed run keeps those it began with.
        tokens: Folder for the tokenizer and the shards of tokens. One that is complete is taken as
            it is. By default they lie beside the checkpoints and go with them.
        resume: Go on from the last checkpoint in ``out``.
        alias: What the registered model's new version is called in MLflow.
        report: Gets a line now and then while the corpus is made.

    Returns:
        The model folder; None in all processes but the first, which writes it.

    Raises:
        InputError: If texts, data, settings or folder cannot be used.
        StoppedError: If a signal ended it early; a checkpoint is there.
        ResourceError: If memory or disk ran out.
    """
    keep_freed_memory()
    quiet_libraries()
    with translate_resource_errors(out):
        run = resume_run(data, out, config) if resume else begin_run(data, out, config)
        config = run.config
        set_seed(config.seed)
        shards, base = _base(run, texts, tokens or run.checkpoints / "tokens", report)
        trainer, rows = _trainer(run, base, shards)
        resolved = {
            "vocabulary_size": base.joke_tokenizer.vocabulary_size,
            "parameters": base.model.num_parameters(),
            "tokens": shards.tokens,
            "passes": {source: round(passes, 3) for source, passes in rows.passes().items()},
            "documents": shards.facts["documents"],
            "compiled": trainer.args.torch_compile,
            "processes": trainer.args.world_size,
            "device": trainer.args.device.type,
        }
        settings = config.to_dict() | resolved
        manifest = Manifest(
            template=run.template,
            base_model=config.base or f"new:{config.size}",
            context_length=base.context_length,
            data=run.data_facts,
            training=settings,
            earlier=earlier_trainings(config.base),
        )
        session = Session(
            trainer=trainer,
            out=out,
            checkpoints=run.checkpoints,
            checkpoint_minutes=config.checkpoint_minutes,
            tokens_per_step=config.tokens_per_step * trainer.args.world_size,
            row=config.block_size,
            precision=resolve_precision(config.precision),
            verb="pretrain",
        )
        return session.train(
            latest_checkpoint(run.checkpoints),
            params={"training": settings, "data": run.data_facts},
            write=lambda speed: write_folder(
                out,
                base,
                data,
                manifest,
                fingerprints_with(config.base, jokes_in(shards, base.joke_tokenizer)),
                weights=config.weights,
                test_limit=config.test_limit,
                seed=config.seed,
                speed=speed,
            ),
            alias=alias,
        )


def _base(
    run: Run[PretrainingConfig], texts: Path, tokens: Path, report: Callable[[str], None]
) -> tuple[TokenShards, Base]:
    """Return the shards and the model to train on them."""
    config = run.config
    base = open_base(config.base, run.template, ()) if config.base else None
    if base and config.layers:
        stack_blocks(base.model, config.layers)
    shape = new_shape(config.size)
    if config.layers:
        shape |= {"n_layer": config.layers}
    entries = base.joke_tokenizer.vocabulary_size if base else shape["vocab_size"]
    context_length = base.context_length if base else shape["n_positions"]
    if config.block_size > context_length:
        raise ConfigError(
            f"setting 'block_size' is {config.block_size}, but "
            f"{config.base or f'size {config.size}'} looks at {context_length} tokens at most"
        )
    kept = config.tokens_kept
    corpus_config = CorpusConfig(
        template=run.template,
        vocabulary_size=entries - len(run.template.special_tokens),
        posts=_names(config.posts),
        left_out=_names(config.leave_out),
        safe=config.safe,
        distinct=config.distinct,
        characters=None
        if kept is None
        else {source: round(n * _CHARACTERS_PER_TOKEN) for source, n in kept.items()},
    )
    own = base.tokenizer if base else None
    if (tokens / MANIFEST).is_file():
        shards, tokenizer = open_corpus(tokens, run.data, corpus_config, own)
    else:
        shards, tokenizer = build_corpus(texts, run.data, tokens, corpus_config, report, own)
    if base is None:
        model = GPT2LMHeadModel(GPT2Config(**shape))  # type: ignore[no-untyped-call]
        base = make_base(model, tokenizer, run.template)
    set_dropout(base.model, config.dropout)
    return shards, base


def _trainer(
    run: Run[PretrainingConfig], base: Base, shards: TokenShards
) -> tuple[JokeTrainer, MixedRows]:
    config = run.config
    precision = resolve_precision(config.precision)
    arguments = TrainingArguments(
        **trainer_settings(run.checkpoints, config.seed),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta2=0.95,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=round(config.steps * config.warmup),
        lr_scheduler_kwargs={
            "num_decay_steps": round(config.steps * config.decay),
            "decay_type": "linear",
        },
        max_steps=config.steps,
        save_strategy="no",
        train_sampling_strategy="sequential",
        torch_compile=resolve_compile(config.compile, config.steps * config.accumulation),
    )
    by_size = {source: float(count) for source, count in shards.tokens.items()}
    shares = parse_shares(config.mixture) if config.mixture else by_size
    final = parse_shares(config.final_mixture) if config.final_mixture else shares
    plan = make_plan(
        config.steps * config.batch_size * config.accumulation * arguments.world_size,
        shares,
        final,
        config.decay,
        config.seed,
    )
    rows = MixedRows(
        {source: shards.stream(source) for source in plan.sources},
        plan,
        config.block_size,
        base.joke_tokenizer.start_id,
        config.seed,
    )
    prepare_for_packed_rows(base.model)
    optimizer = None
    if config.optimizer == "muon":
        optimizer = MuonWithAdamW(
            base.model, lr=config.learning_rate, weight_decay=config.weight_decay, dtype=precision
        )
    trainer = JokeTrainer(
        autocast=precision,
        model=base.model,
        args=arguments,
        train_dataset=rows,
        optimizers=(optimizer, None),
    )
    trainer.processing_class = base.tokenizer
    return trainer, rows


def _names(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())
