"""Models of other packages before and after `padless.accelerate`: run by `run.py` in an environment of its own.

Each builder returns a model on data made up here, and a function that computes the loss of one batch. Nothing of a
package is changed.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import padless
from padless.bench.facts import facts

Built = tuple[torch.nn.Module, Callable[[], torch.Tensor]]
TURNS = 7


def flair_tagger() -> Built:
    """The `SequenceTagger` of flair: BiLSTM and CRF; 32 sentences of 4 to 60 words."""
    from flair.data import Corpus, Sentence
    from flair.datasets import FlairDatapointDataset
    from flair.embeddings import OneHotEmbeddings
    from flair.models import SequenceTagger

    chance, sentences = random.Random(0), []
    for _ in range(32):
        sentence = Sentence([f"w{chance.randrange(500)}" for _ in range(chance.randint(4, 60))])
        for token in sentence.tokens:
            token.add_label("pos", "N" if int(token.text[1:]) % 2 else "V")
        sentences.append(sentence)
    corpus = Corpus(train=FlairDatapointDataset(sentences), sample_missing_splits=False)
    tags = corpus.make_label_dictionary("pos", add_unk=False)
    embeddings = OneHotEmbeddings.from_corpus(corpus, embedding_length=100, min_freq=1)
    model = SequenceTagger(embeddings, tags, "pos", hidden_size=256, use_crf=True, dropout=0.0, word_dropout=0.0,
                           locked_dropout=0.0)  # fmt: skip

    def loss() -> torch.Tensor:
        for sentence in sentences:
            sentence.clear_embeddings()
        return model.forward_loss(sentences)[0]

    return model, loss


def stanza_characters() -> Built:
    """The character language model of stanza: LSTM over packed characters; 64 words of 4 to 120."""
    from stanza.models.common.char_model import CharacterLanguageModel
    from stanza.models.common.vocab import CharVocab

    vocabulary = CharVocab(["abcdefghijklmnopqrstuvwxyz"] * 3, cutoff=0)
    options = {
        "char_emb_dim": 100, "char_hidden_dim": 256, "char_num_layers": 1, "char_dropout": 0.0,
        "char_unit_dropout": 0.0, "char_lowercase": False, "char_rec_dropout": 0.0,
    }  # fmt: skip
    model = CharacterLanguageModel(options, {"char": vocabulary}, is_forward_lm=True)
    lengths = sorted(torch.randint(4, 121, (64,)).tolist(), reverse=True)
    characters = torch.randint(4, 20, (64, lengths[0]))

    def loss() -> torch.Tensor:
        scores = model(characters, lengths)[2]
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), characters.flatten(0, 1))

    return model, loss


def speechbrain_encoder() -> Built:
    """The `LSTM` of speechbrain, two layers, both directions; 16 utterances of 60 to 300 frames."""
    from speechbrain.nnet.RNN import LSTM

    model = LSTM(hidden_size=256, input_shape=(None, None, 80), num_layers=2, bidirectional=True)
    frames, lengths = torch.randn(16, 300, 80), torch.rand(16) * 0.8 + 0.2
    return model, lambda: model(frames, lengths=lengths)[0].square().mean()


def forecasting_network() -> Built:
    """pytorch-forecasting's `RecurrentNetwork`: 64 series of 5 to 60 steps."""
    import numpy as np
    import pandas as pd
    from pytorch_forecasting import RecurrentNetwork, TimeSeriesDataSet

    chance = np.random.default_rng(0)
    frames = []
    for series in range(64):
        steps = np.arange(int(chance.integers(40, 120)))
        value = np.sin(steps / 5 + series) + chance.normal(0, 0.1, len(steps))
        frames.append(pd.DataFrame({"series": str(series), "time": steps, "value": value.astype("float32")}))
    data = TimeSeriesDataSet(
        pd.concat(frames, ignore_index=True), time_idx="time", target="value", group_ids=["series"],
        min_encoder_length=5, max_encoder_length=60, max_prediction_length=6, time_varying_unknown_reals=["value"],
    )  # fmt: skip
    model = RecurrentNetwork.from_dataset(data, hidden_size=128, rnn_layers=2, dropout=0.0)
    x, y = next(iter(data.to_dataloader(train=True, batch_size=64, num_workers=0)))
    return model, lambda: model.loss(model(x).prediction, y)


def recurrent_ppo() -> Built:
    """sb3-contrib's `RecurrentPPO` policy on CartPole: 128 steps in episodes, each a sequence."""
    from sb3_contrib import RecurrentPPO
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    agent = RecurrentPPO(
        "MlpLstmPolicy", "CartPole-v1", n_steps=128, seed=0, policy_kwargs={"lstm_hidden_size": 128}
    )
    policy = agent.policy
    observations, actions = torch.randn(128, 4), torch.randint(0, 2, (128,))
    starts = torch.zeros(128)
    starts[::16] = 1  # eight episodes
    zeros = torch.zeros(1, 8, 128)
    states = RNNStates((zeros, zeros), (zeros, zeros))

    def loss() -> torch.Tensor:
        values, log_probability, entropy = policy.evaluate_actions(observations, actions, states, starts)
        return values.square().mean() - log_probability.mean() - entropy.mean()

    return policy, loss


CLIENTS: dict[str, Callable[[], Built]] = {
    "flair tagger": flair_tagger,
    "stanza characters": stanza_characters,
    "speechbrain encoder": speechbrain_encoder,
    "pytorch-forecasting": forecasting_network,
    "sb3 recurrent PPO": recurrent_ppo,
}


def milliseconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def train(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer
) -> float:
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    return value.item()


def serve(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> float:
    with torch.no_grad():
        return loss().item()


def milliseconds_without(model: torch.nn.Module, step: Callable[[], Any]) -> float:
    """Time of a training step in which recurrent layers return what they returned before, and compute nothing."""
    model.train()
    layers = [m for m in model.modules() if isinstance(m, torch.nn.RNNBase)]
    kept: dict[torch.nn.Module, list[Any]] = {layer: [] for layer in layers}
    hooks = [m.register_forward_hook(lambda m, _, result: kept[m].append(result)) for m in layers]
    step()
    for hook in hooks:
        hook.remove()
    for layer in layers:
        results = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, kept[layer])
        turn = itertools.cycle(results)

        def forward(x: Any, *_: Any, turn: Any = turn, layer: torch.nn.Module = layer, **__: Any) -> Any:
            output, state = next(turn)
            edge = 0 * next(layer.parameters()).sum()  # what follows has something to differentiate
            if isinstance(output, torch.Tensor):
                return output + edge, state
            return output._replace(data=output.data + edge), state

        layer.forward = forward
    step()
    found = statistics.median(milliseconds(step) for _ in range(TURNS))
    for layer in layers:
        del layer.forward
    return found


def measure(build: Callable[[], Built]) -> dict[str, Any]:
    torch.set_num_threads(1)
    sides = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        model, loss = build()
        if accelerated:
            padless.accelerate(model)  # the one line
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        sides.append((model, loss, optimizer))
    losses = [[train(*side) for _ in range(4)] for side in sides]
    for before, after in zip(*losses, strict=True):
        assert abs(before - after) <= 1e-4 * max(1, abs(before)), f"losses differ: {losses}"
    times: dict[str, list[list[float]]] = {"train": [[], []], "serve": [[], []]}
    for _ in range(TURNS):
        for i, (model, loss, optimizer) in enumerate(sides):
            model.train()
            times["train"][i].append(milliseconds(lambda side=(model, loss, optimizer): train(*side)))
            model.eval()
            times["serve"][i].append(milliseconds(lambda side=(model, loss): serve(*side)))
    found = {name: [statistics.median(side) for side in both] for name, both in times.items()}
    rest = milliseconds_without(sides[0][0], lambda: train(*sides[0]))
    return {"losses": losses, "milliseconds": found, "recurrent_share": 1 - rest / found["train"][0]}


def main() -> None:
    warnings.filterwarnings("ignore")
    results = {}
    for name, build in CLIENTS.items():
        try:
            results[name] = measure(build)
        except (
            ImportError,
            OSError,
        ) as error:  # a package that cannot be installed here is left out, and said
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    with open(sys.argv[1], "w") as file:
        json.dump({**facts(threads=1), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
