from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest

from ssl_zoo.data.embeddings import join_parts, read_about, read_embeddings, read_skipped, shape_of, write_part
from ssl_zoo.data.examples import Example


def examples(count: int, labels: list[str | None], first: int = 0) -> list[Example]:
    return [Example("train", first + i, f"{first + i}.png", labels[i], partial(bytes), "") for i in range(count)]


def test_parts_become_row_groups_in_order(tmp_path: Path) -> None:
    vectors = np.arange(20, dtype=np.float32).reshape(5, 4)
    write_part(
        tmp_path / "0.parquet", examples(3, ["a", None, "b"]), [([2, 0], vectors[[2, 0]])], ["1.png"], True, False
    )
    write_part(tmp_path / "1.parquet", examples(2, [None, "b"], 3), [([0, 1], vectors[3:])], [], True, False)
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    assert [read_skipped(part) for part in parts] == [["1.png"], []]
    join_parts(tmp_path / "embeddings.parquet", parts, {"encoder": "abc"})
    found = read_embeddings(tmp_path)
    assert found.paths == ["0.png", "2.png", "3.png", "4.png"]
    assert found.labels == ["a", "b", None, "b"]
    assert np.array_equal(found.vectors, vectors[[0, 2, 3, 4]])
    assert found.about == read_about(tmp_path / "embeddings.parquet") == {"encoder": "abc"}
    assert (found.name(1), found.key(1), shape_of(tmp_path / "embeddings.parquet")) == ("2.png", ("train", 2), (4, 4))


def test_pandas_reads_it_in_three_lines(tmp_path: Path) -> None:
    vectors = np.float32([[1, 2], [3, 1 / 3]])
    write_part(tmp_path / "0.parquet", examples(2, [None, None]), [([0, 1], vectors)], [], False, True)
    join_parts(tmp_path / "embeddings.parquet", [tmp_path / "0.parquet"], {})
    table = pandas.read_parquet(tmp_path / "embeddings.parquet")
    assert list(table) == ["index", "split", "vector"], "neither paths nor labels, since there are none"
    x = np.stack(table["vector"])
    assert x.dtype == np.float16
    assert np.array_equal(x, vectors.astype(np.float16))
    assert read_embeddings(tmp_path).vectors.dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really PAR1", None])
def test_another_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        pandas.DataFrame({"vector": [1]}).to_parquet(tmp_path / "embeddings.parquet")
    else:
        (tmp_path / "embeddings.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"embeddings\.parquet: damaged, or no file of task=embed"):
        read_embeddings(tmp_path / "embeddings.parquet")
