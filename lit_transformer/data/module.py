"""What all DataModules here have in common: which part of the data a process reads, and epochs that begin anew."""

from lightning.pytorch import LightningDataModule

from lit_transformer.data.loaders import ALONE, Share


class SharedData(LightningDataModule):
    """Base of the DataModules: their loaders share the data out among the processes themselves."""

    planned: Share | None = None
    """The part to read where there is no Trainer: set by who wants to know what a process of many would read."""

    def _share(self) -> Share:
        if self.planned is not None:
            return self.planned
        if self.trainer is None:
            return ALONE
        ranks = self.trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        return Share(ranks["rank"], ranks["num_replicas"], self.trainer.accumulate_grad_batches)

    def _restart_epoch(self) -> None:
        """The Trainer begins an epoch too; it would count on from the batches of the old one and step amid a window."""
        if self.trainer is not None:
            progress = self.trainer.fit_loop.epoch_loop.batch_progress
            progress.current.reset()
            if progress.total.completed < progress.total.ready:
                progress.current.completed = -1  # the Trainer still counts the batch that the checkpoint was written at
