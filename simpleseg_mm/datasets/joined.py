"""Training sets side by side."""
from collections.abc import Iterator, Sequence

from mmengine.dataset import ConcatDataset

from simpleseg_mm.registry import DATASETS


@DATASETS.register_module()
class JoinedDataset(ConcatDataset):
    """Several datasets as one, such as web shards and RefCOCO; for ``InfiniteVisitSampler``.

    A visit of the whole has as many samples as the datasets together. Of a dataset whose share is
    smaller than itself each visit takes the next samples, of one whose share is larger it takes
    samples again, with new random choices. Ids of samples are those of their datasets, hence not
    unique: join for training, not for evaluation.

    Args:
        datasets: Configs of datasets that take an index beyond their end for a later visit, as
            every :class:`QueryDataset` does.
        weights: The datasets' shares of the samples, in any unit. None: by their sizes.

    Raises:
        ValueError: ``weights`` are not numbers above 0, one a dataset.
    """

    def __init__(self, datasets: Sequence[dict],
                 weights: Sequence[float] | None = None) -> None:
        if weights is not None and not (len(weights) == len(datasets)
                                        and all(weight > 0 for weight in weights)):
            raise ValueError(f'weights must be {len(datasets)} numbers above 0, one a dataset, '
                             f'got {list(weights)}')
        super().__init__([DATASETS.build(dataset) for dataset in datasets],
                         ignore_keys=['classes', 'palette'])  # of sets of pictures
        sizes = [len(dataset) for dataset in self.datasets]
        shares = sizes if weights is None else weights
        self.counts = [max(1, round(share * sum(sizes) / sum(shares))) for share in shares]

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> dict:
        """Sample ``index % len`` at visit ``index // len``."""
        visit, number = divmod(int(index), len(self))
        for dataset, count in zip(self.datasets, self.counts):
            if number < count:
                return dataset[visit * count + number]
            number -= count
        raise AssertionError('a number below the sum of the counts')

    def __iter__(self) -> Iterator[dict]:
        """The samples of the first visit; an index alone may lie beyond."""
        return map(self.__getitem__, range(len(self)))
