"""Send the mail once the order is committed, and never for one that was rolled back."""

from __future__ import annotations

from samples.usage.database import insert_text, run, show
from txkit import AfterCommitError, after_commit, after_completion, transactional


async def send_mail(text: str) -> None:
    if text == "unreachable":
        raise ConnectionError("no mail server")
    print(f"mail: {text}")


@transactional
async def order(text: str) -> str:
    """Register what follows the commit where the work is done."""
    await insert_text(text)

    @after_completion
    def note(outcome: str) -> None:
        print(f"{text}: {outcome}")

    @after_commit
    async def confirm() -> None:
        await send_mail(text)

    return f"order {text!r}"


@transactional
async def order_and_pay(text: str) -> None:
    """Call a service that knows nothing of what becomes of its work."""
    await order(text)
    raise PermissionError("the card was refused")


async def main() -> None:
    await order("tea")
    await show("after tea was ordered")

    try:
        await order_and_pay("milk")
    except PermissionError:
        await show("after PermissionError left order_and_pay")

    try:
        await order("unreachable")
    except AfterCommitError as error:  # committed all the same: not to be repeated
        print(f"{error.result}: {error.exceptions[0]}")
        await show("after AfterCommitError left order")


if __name__ == "__main__":
    run(main)
