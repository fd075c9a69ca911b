"""The invoice, in Python: built from the WIT package with componentize-py."""

from collections.abc import Callable

import surroundings
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.definitions import Asset, Capability, Input, Kind, Mapping_Same, Requirement
from wit_world.exports.materializer import Outcome, Outcome_Done
from wit_world.imports import http, inputs, key_value, log, output
from wit_world.imports.types import (
    CapabilityError_Denied,
    CapabilityError_Unavailable,
    Failure_Permanent,
    Failure_Retryable,
    Field,
    Retry,
)

CHUNK_BYTES = 1 << 20


class Definitions(exports.Definitions):
    def describe(self) -> list[Asset]:
        return [
            Asset(
                name="invoice_python",
                description="Orders with their prices.",
                kind=Kind.PLAIN,
                inputs=[Input(name="orders", asset="orders", optional=False, mapping=Mapping_Same())],
                dimensions=[],
                requirements=[
                    Requirement("shop", Capability.HTTP, "asks for prices"),
                    Requirement("prices", Capability.KEY_VALUE, "remembers prices"),
                ],
                media_type="text/csv",
                checks=[],
                tags=[],
            ),
            Asset(
                name="surroundings",
                description="What the standard library finds around an asset.",
                kind=Kind.PLAIN,
                inputs=[],
                dimensions=[],
                requirements=[],
                media_type="text/plain",
                checks=[],
                tags=[],
            ),
        ]


class Materializer(exports.Materializer):
    def materialize(self, asset: str) -> Outcome:
        if asset == "surroundings":
            surroundings.write(write)
        else:
            with Step("the invoice"), http.open("shop") as shop, key_value.open("prices") as prices:
                write_invoice(Prices(asset, shop, prices))
        return Outcome_Done()


class Step:
    """What the host refuses here is how the asset fails; what may pass is worth another attempt."""

    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type, error: BaseException | None, _traceback) -> None:
        match error:
            case Err(Failure_Permanent() | Failure_Retryable()) | None:
                pass
            case Err(CapabilityError_Unavailable(why)):
                raise Err(Failure_Retryable(Retry(f"{self.what}: unavailable: {why}", None)))
            case Err(CapabilityError_Denied()):
                raise Err(Failure_Permanent(f"{self.what}: denied"))
            case Err(refused):
                raise Err(Failure_Permanent(f"{self.what}: {refused}"))


class Prices:
    """What is remembered, or else what the shop says."""

    def __init__(self, asset: str, shop: http.Client, remembered: key_value.Bucket):
        self.asset, self.shop, self.remembered = asset, shop, remembered

    def cents(self, item: str) -> int:
        key = f"{self.asset}/price/{item}"
        with Step(f"the price of {item}"):
            known = self.remembered.get(key)
            if known is not None:
                return int(known.value)
            price = self.ask(item)
            self.remembered.set(key, price)
            self.remembered.increment(f"{self.asset}/asked", 1)
            return int(price)

    def ask(self, item: str) -> bytes:
        request = http.Request(
            method="GET", path="price", query=[Field("item", item)], headers=[], body=b"", idempotency_key=None
        )
        with self.shop.send(request) as answer:
            if answer.status() != 200:
                raise Err(Failure_Permanent(f"the price of {item}: status {answer.status()}"))
            return read_all(answer.read)


def write_invoice(prices: Prices) -> None:
    with Step("the orders"), inputs.open("orders", 0) as reader:
        orders = read_all(reader.read).decode().splitlines()[1:]
    due = 0
    write("item,quantity,cents,total\n")
    for order in orders:
        item, quantity = order.split(",")
        cents = prices.cents(item)
        total = int(quantity) * cents
        due += total
        write(f"{item},{quantity},{cents},{total}\n")
    write(f"sum,,,{due}\n")
    count = [Field("orders", str(len(orders)))]
    output.set_metadata(count)
    log.write(log.Level.INFO, "priced", count)


def read_all(read: Callable[[int], bytes]) -> bytes:
    return b"".join(iter(lambda: read(CHUNK_BYTES), b""))


def write(text: str) -> None:
    with Step("the output"):
        output.write(text.encode())
