"""Models from their configuration, and the tokens that one adds to a text."""

import pytest
import torch

from ssl_zoo.backbones.transformers_config import model_from_config, plain_config, transformers_from_config

transformers = pytest.importorskip("transformers")

BERT = {"model_type": "bert", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 20, "pad_token_id": 0}  # fmt: skip


def test_a_configuration_is_enough() -> None:
    model = model_from_config(BERT)
    again = model_from_config(plain_config(model.config))
    again.load_state_dict(model.state_dict())
    ids = torch.randint(1, 30, (2, 7))
    assert torch.equal(model.eval()(ids).last_hidden_state, again.eval()(ids).last_hidden_state)
    assert not {"architectures", "transformers_version"} & plain_config(model.config).keys()


def test_unknown_architecture() -> None:
    with pytest.raises(ValueError, match="architecture none is not one of transformers"):
        model_from_config({"model_type": "none"})


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_added_tokens_are_where_they_belong(pool: str) -> None:
    """A padded batch with tokens added inside equals each text with the tokens written out."""
    encoder = transformers_from_config(BERT, pool, 0, prefix=[2], suffix=[3, 4]).eval()
    plain = transformers_from_config(BERT, pool, 0).eval()
    plain.load_state_dict(encoder.state_dict())
    texts = [[7, 8, 9, 10], [11], [12, 13]]
    batch = torch.tensor([text + [0] * (4 - len(text)) for text in texts])
    found = encoder.encode(batch)
    assert found.tokens.shape == found.layers[-1].shape == (3, 4, 16)
    for row, text in enumerate(texts):
        written = plain.encode(torch.tensor([[2, *text, 3, 4]]))
        assert torch.allclose(found.pooled[row], written.pooled[0], atol=1e-5)
        assert torch.allclose(found.tokens[row, : len(text)], written.tokens[0, 1 : 1 + len(text)], atol=1e-5)
    with pytest.raises(ValueError, match="adds tokens of its own"):
        encoder.encode(batch, embeddings=torch.zeros(3, 4, 16))
