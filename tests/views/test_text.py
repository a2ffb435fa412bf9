"""Windows of documents: inside, everywhere, and whole where the document is short."""

import torch

from ssl_zoo.views import Views
from ssl_zoo.views.text import Windows


def test_windows_lie_inside_their_documents() -> None:
    lengths = torch.tensor([50, 20, 8, 5])
    documents = torch.arange(1, 51).repeat(4, 1) * (torch.arange(50) < lengths[:, None])
    views = Views([[Windows(8)]], copies=[2])
    starts = set()
    for epoch in range(300):
        first, second = views(documents, torch.arange(4), epoch, 0)
        assert first.shape == second.shape == (4, 8)
        assert first.dtype == torch.int64
        assert torch.equal(first[:3], first[:3, :1] + torch.arange(8))
        assert first[2, 0] == 1
        assert first[3].tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
        starts.add(int(first[1, 0]))
    assert starts == set(range(1, 14))
    assert not torch.equal(first[0], second[0])
