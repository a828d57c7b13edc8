"""Training sets side by side."""
from collections.abc import Sequence

from mmengine.dataset import ConcatDataset

from simpleseg_mm.registry import DATASETS


@DATASETS.register_module()
class JoinedDataset(ConcatDataset):
    """Several datasets as one, such as polygons and questions; for ``InfiniteVisitSampler``.

    Each dataset draws its own random choices by sample and visit, as it does alone. Ids of
    samples are those of their datasets, hence not unique: join for training, not for evaluation.

    Args:
        datasets: Configs of datasets that take an index beyond their end for a later visit, as
            :class:`RefCOCODataset` does.
        times: How often each dataset is read in one visit of the whole: their shares.

    Raises:
        ValueError: ``times`` are not whole numbers of at least 1, one a dataset.
    """

    def __init__(self, datasets: Sequence[dict], times: Sequence[int] | None = None) -> None:
        times = [1] * len(datasets) if times is None else list(times)
        if len(times) != len(datasets) or not all(isinstance(n, int) and n > 0 for n in times):
            raise ValueError(f'times must be {len(datasets)} whole numbers of at least 1, one a '
                             f'dataset, got {times}')
        built = [DATASETS.build(dataset) for dataset in datasets]
        self.times = [n for n in times for _ in range(n)]
        self.rounds = [k for n in times for k in range(n)]
        super().__init__([dataset for dataset, n in zip(built, times) for _ in range(n)])

    def __getitem__(self, index: int) -> dict:
        """Sample ``index % len`` at visit ``index // len``."""
        visit, number = divmod(int(index), len(self))
        place, sample = self._get_ori_dataset_idx(number)
        dataset = self.datasets[place]
        own_visit = visit * self.times[place] + self.rounds[place]
        return dataset[sample + own_visit * len(dataset)]
