"""An encoder in use: `ssl_zoo.load(...)` gives a module with the transform of its inputs and the embedding of files.

    encoder = ssl_zoo.load("outputs/2026-11-28/10-15-00-a1b2")     # a run folder, an encoder file, "timm:...", "hf:..."
    vectors = encoder.embed(["cat.jpg", "dog.png"])                # (2, D)
    features = encoder(torch.stack([encoder.transform(image)]))    # a module like any other

Neither Hydra nor Lightning is needed. Letters: B examples, C H W image, L tokens of a text, N tokens, D width.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from ssl_zoo import encoder_file, files
from ssl_zoo.backbones.image import LOADING_OPTIONS, image_backbone
from ssl_zoo.backbones.image_transformers import image_transformers_from_config
from ssl_zoo.backbones.text import TextTransformer, transformers_backbone
from ssl_zoo.backbones.token_features import TokenFeatures, token_features
from ssl_zoo.backbones.transformers_config import transformers_from_config
from ssl_zoo.data.image.decode import open_image, resize_and_crop
from ssl_zoo.data.text.documents import clean
from ssl_zoo.data.text.tokenizer import TextTokenizer
from ssl_zoo.untrusted import check_plain
from ssl_zoo.views import Views
from ssl_zoo.views.colour import Normalize

Item = str | Path | bytes | Image.Image | np.ndarray
"""An image: its path, the bytes of its file, pixels (H, W) or (H, W, C) uint8, or Pillow's; or a text, as str."""


class Encoder(nn.Module):
    """A trained network that maps inputs (B, ...) to features (B, D), and how to make these inputs.

    Args:
        network: the backbone, with D as `num_features`.
        manifest: see `ssl_zoo.encoder_file`.
        tokenizer: of a text encoder.
    """

    def __init__(self, network: nn.Module, manifest: dict[str, Any], tokenizer: TextTokenizer | None = None):
        super().__init__()
        self.network = network
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.inputs: dict[str, Any] = manifest["input"]
        if self.modality == "image":
            self._normalize = Views([[Normalize(self.inputs["mean"], self.inputs["std"])]])

    @property
    def modality(self) -> str:
        """Either "image" or "text"."""
        return str(self.manifest["modality"])

    @property
    def num_features(self) -> int:
        """D."""
        return int(cast(Any, self.network).num_features)

    @property
    def device(self) -> torch.device:
        """The device of the weights; `encoder.to("cuda")` moves them."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Maps transformed images (B, C, H, W) float32, or token ids (B, L) int64, to features (B, D)."""
        features: Tensor = self.network(x)
        return features

    def transform(self, item: Item, name: str = "image") -> Tensor:
        """Makes the network's input of one image or text, as the evaluation of its run did.

        Args:
            item: an image (see `Item`), or a text.
            name: of an image that is not given by its path, for error messages.

        Returns:
            (C, S, S) float32; or (L,) int64, at least one token.

        Raises:
            UnreadableImage: for an image that cannot be decoded.
            TypeError: for anything else than an image, or a text.
        """
        if self.modality == "text":
            if not isinstance(item, str):
                raise TypeError(f"this encoder is for text: give str, not {type(item).__name__}")
            return self._token_ids([item])[0]
        if isinstance(item, np.ndarray):
            item = Image.fromarray(item)
        if isinstance(item, str):
            item = Path(item)
        if not isinstance(item, Path | bytes | Image.Image):
            raise TypeError(
                f"this encoder is for images: give a path, bytes or a Pillow image, not {type(item).__name__}"
            )
        name = str(item) if isinstance(item, Path) else name
        about = self.inputs
        pixels = open_image(item, name, about["in_chans"], about.get("bits") or 16)
        pixels = resize_and_crop(
            pixels, about["image_size"], about.get("interpolation", "bilinear"), about.get("crop_ratio", 1.0)
        )
        (view,) = self._normalize(torch.from_numpy(pixels)[None], torch.zeros(1, dtype=torch.int64), 0, 0)
        return view[0]

    def _token_ids(self, texts: Sequence[str]) -> list[Tensor]:
        assert self.tokenizer is not None
        cleaned = [clean(text, self.inputs.get("replace") or {}) for text in texts]
        found = [ids[: self.inputs["max_length"]] for ids in self.tokenizer.encode(cleaned, special=False)]
        empty = np.array([self.tokenizer.unk_id])  # padding alone would depend on the batch it is in
        return [torch.from_numpy(ids if len(ids) else empty) for ids in found]

    @torch.no_grad()
    def embed(self, items: Iterable[Item], batch_size: int = 64) -> Tensor:
        """Embeds images or texts, in evaluation mode.

        Args:
            items: any number; images are read as they are needed, in several threads.
            batch_size: examples per forward pass.

        Returns:
            (number of items, D) float32 on the CPU, in the order of `items`.

        Raises:
            TypeError: for a single string, which would be taken for a list of letters.
            UnreadableImage: for an image that cannot be decoded; names it.
        """
        if isinstance(items, str | bytes | Path):
            raise TypeError("embed takes a list: give [item] for a single one")
        items = list(items)
        order = list(range(len(items)))
        if self.modality == "text":  # texts of similar length need little padding
            order.sort(key=lambda i: len(str(items[i])))
        vectors = torch.empty(len(items), self.num_features)
        for rows, part in zip(
            _batches(order, batch_size), self.embed_batches((items[i] for i in order), batch_size), strict=True
        ):
            vectors[rows] = part
        return vectors

    @torch.no_grad()
    def embed_batches(self, items: Iterable[Item], batch_size: int = 64) -> Iterator[Tensor]:
        """As `embed`, one (b, D) tensor per batch in the order of `items`, for more examples than fit in memory."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with ThreadPoolExecutor() as pool:
                for batch in _batches(items, batch_size):
                    inputs = (
                        self._token_ids(batch) if self.modality == "text" else list(pool.map(self.transform, batch))
                    )
                    yield self(self.collate(inputs).to(self.device)).float().cpu()
        finally:
            for module, training in modes:
                module.training = training

    def collate(self, inputs: Sequence[Tensor]) -> Tensor:
        """Stacks transformed examples to one batch; texts are padded to the longest: (B, L) int64."""
        if self.modality == "image":
            return torch.stack(list(inputs))
        assert self.tokenizer is not None
        return nn.utils.rnn.pad_sequence(list(inputs), batch_first=True, padding_value=self.tokenizer.pad_id)

    def tokens(self, x: Tensor) -> TokenFeatures:
        """Features of the patches of images (B, C, H, W), or of the tokens of texts (B, L), after the last norm.

        Raises:
            ValueError: for a network that gives one vector per image only.
        """
        return token_features(self.network, x)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def load(encoder: str | Path, network: nn.Module | None = None) -> Encoder:
    """Loads an encoder, in evaluation mode on the CPU.

    Args:
        encoder: a run folder; an encoder file; a checkpoint of a run; "timm:NAME" or "hf:NAME" for a pretrained model
            of timm or of the Hugging Face Hub.
        network: the module to load the weights into, for a run with a backbone of your own.

    Raises:
        ValueError: if there is no such encoder, its file is damaged, or its network is not one of this package.
    """
    if str(encoder).startswith(encoder_file.ORIGINS):
        from ssl_zoo import pretrained

        return pretrained.load_pretrained(str(encoder))
    file = encoder_file.find_encoder_file(encoder)
    if file.suffix == ".ckpt":
        from ssl_zoo.training import encoder_card

        manifest, state, text = encoder_card.encoder_of_checkpoint(file)
    else:
        manifest = encoder_file.read_manifest(file)
        state, text = _read_state(file, manifest), encoder_file.header_texts(file).get("tokenizer")
    tokenizer = None
    if manifest["modality"] == "text":
        tokenizer = _read_tokenizer(file, text, manifest["input"])
    if network is None:
        network = build_network(str(file), manifest)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"encoder={file}: its weights are not those of its network: {error}") from error
    return Encoder(network, manifest, tokenizer).eval()


def _read_state(file: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    remedy = "Copy it again, or give another"
    try:
        state = safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"encoder={file}: damaged ({error}). {remedy}") from error
    if hash_weights(state) != manifest["weights_hash"]:
        raise ValueError(f"encoder={file}: damaged, its weights are not those that were written. {remedy}")
    return state


def _read_tokenizer(file: Path, text: str | None, about: Mapping[str, Any]) -> TextTokenizer:
    if text is None:
        raise ValueError(f"encoder={file}: has no tokenizer. Copy the file again, or give its run folder")
    tokenizer = TextTokenizer(file, text.encode())
    if tokenizer.identity != about["tokenizer_hash"]:
        raise ValueError(f"encoder={file}: its tokenizer is not the one that it was trained with. Copy the file again")
    return tokenizer


def build_network(encoder: str, manifest: Mapping[str, Any], **changes: Any) -> nn.Module:
    """Builds the network of a manifest with random weights; nothing but plain values is taken from it.

    Args:
        encoder: its name, for messages.
        manifest: see `ssl_zoo.encoder_file`.
        changes: further arguments of its builder, such as `drop_path_rate`.

    Raises:
        ValueError: for a builder that is not of this package, or an argument that it does not have.
    """
    builder, arguments = manifest["builder"], {**manifest["arguments"], **changes}
    if builder not in encoder_file.BUILDERS:
        raise ValueError(
            f"encoder={encoder}: its network was built by {builder}, and code that a file names is never run. From "
            "Python, give the network: ssl_zoo.load(file, network=...)"
        )
    _check_arguments("arguments", arguments)
    if builder == encoder_file.IMAGE_BUILDER:
        return image_backbone(**arguments)
    if builder == encoder_file.TEXT_BUILDER:
        return TextTransformer(**arguments)
    if changes:
        raise ValueError(f"encoder={encoder}: a network of transformers takes no {', '.join(changes)}. Leave it out")
    if builder == encoder_file.TRANSFORMERS_IMAGE_BUILDER:
        return image_transformers_from_config(**arguments)
    return transformers_from_config(**arguments) if "config" in arguments else transformers_backbone(**arguments)


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for a value that is not plain, or that would load something."""
    for key, value in arguments.items():
        loads = key in LOADING_OPTIONS or (key == "pretrained" and value is not False)
        if not str(key).isidentifier() or (loads and name == "arguments"):
            raise ValueError(f"{name}.{key} of the encoder file names something to be loaded: it is never taken")
        if isinstance(value, Mapping):
            _check_arguments(f"{name}.{key}", value)
        else:
            check_plain(f"{name}.{key}", value, "encoder file")


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Sha256 of names, types, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_encoder(folder: Path, network: nn.Module, manifest: dict[str, Any], tokenizer: TextTokenizer | None) -> Path:
    """Writes `encoder.safetensors` and `encoder.json`, each atomically, and returns the path of the first.

    Args:
        folder: an existing folder.
        network: the backbone.
        manifest: see `ssl_zoo.encoder_file`; `weights_hash` is added.
        tokenizer: of a text encoder.

    Raises:
        OSError: if the disk refuses a file.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    text = json.dumps({**manifest, "weights_hash": hash_weights(state)}, indent=1)
    header = {"format": "pt", "manifest": text}
    if tokenizer is not None:
        header["tokenizer"] = tokenizer.content.decode()
    path = folder / encoder_file.WEIGHTS_NAME
    files.write_atomically(path, safetensors.torch.save(state, metadata=header))
    files.write_atomically(folder / encoder_file.MANIFEST_NAME, text + "\n")
    return path
