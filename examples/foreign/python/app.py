"""The invoice, in Python: built with componentize-py from the WIT package alone."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.definitions import Asset, Capability, Input, Kind, Mapping_Same, Requirement
from wit_world.exports.materializer import Outcome, Outcome_Done
from wit_world.imports import http, inputs, log, output
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
                requirements=[Requirement("shop", Capability.HTTP, "asks for prices")],
                media_type="text/csv",
                checks=[],
                tags=[],
            )
        ]


class Materializer(exports.Materializer):
    def materialize(self, asset: str) -> Outcome:
        try:
            invoice()
        except Err as error:
            raise Err(failure(error.value))
        return Outcome_Done()


def invoice() -> None:
    orders = [line.split(",") for line in read_input("orders").splitlines()[1:]]
    sum = 0
    write("item,quantity,cents,total\n")
    with http.open("shop") as shop:
        for item, quantity in orders:
            cents = price(shop, item)
            total = int(quantity) * cents
            sum += total
            write(f"{item},{quantity},{cents},{total}\n")
    write(f"sum,,,{sum}\n")
    output.set_metadata([Field("orders", str(len(orders)))])
    log.write(log.Level.INFO, "priced", [Field("orders", str(len(orders)))])


def price(shop: http.Client, item: str) -> int:
    request = http.Request("GET", "price", [Field("item", item)], [], b"", None)
    with shop.send(request) as answer:
        if answer.status() != 200:
            raise Err(Failure_Permanent(f"the price of {item}: status {answer.status()}"))
        return int(read_all(answer.read))


def read_input(name: str) -> str:
    with inputs.open(name, 0) as reader:
        return read_all(reader.read)


def read_all(read) -> str:
    return b"".join(iter(lambda: read(CHUNK_BYTES), b"")).decode()


def write(text: str) -> None:
    output.write(text.encode())


def failure(error):
    """Whether another attempt is worth it."""
    match error:
        case Failure_Permanent() | Failure_Retryable():
            return error
        case CapabilityError_Unavailable(why):
            return Failure_Retryable(Retry(why, None))
        case CapabilityError_Denied():
            return Failure_Permanent("denied")
        case other:
            return Failure_Permanent(str(other))
