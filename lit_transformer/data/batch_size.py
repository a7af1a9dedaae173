"""How many rows a device reads at a time: said of each device, or of all together."""

from lit_transformer.errors import UserError


class AcrossDevices:
    """Rows of a batch on all devices that see different data together, shared out evenly.

    The same updates on any number of devices, where a plain ``batch_size: 16`` is of each device. Only the devices
    divide them: ``trainer.accumulate_grad_batches`` multiplies these rows as it does those of one device.

    Args:
        rows: Their number.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_each(self, devices: int) -> int:
        """Rows on each of so many devices.

        Raises:
            UserError: They do not come out even, or there are none.
        """
        if self.rows < 1:  # not in the constructor: where a plain number may stand too, the parser hides its errors
            raise UserError(f"data.batch_size.rows: is {self.rows}, must be at least 1")
        if self.rows % devices:
            below = self.rows // devices * devices
            valid = ", ".join(str(rows) for rows in (below, below + devices) if rows)
            numbers = ", ".join(str(number) for number in range(1, self.rows + 1) if self.rows % number == 0)
            raise UserError(
                f"data.batch_size.rows: {self.rows} rows cannot be shared by {devices} devices that see different "
                f"data; valid: {valid}; or devices: {numbers}"
            )
        return self.rows // devices


def rows_on_each(batch_size: int | AcrossDevices, devices: int) -> int:
    """Rows on each of so many devices that see different data.

    Raises:
        UserError: They do not come out even.
    """
    return batch_size.on_each(devices) if isinstance(batch_size, AcrossDevices) else batch_size
