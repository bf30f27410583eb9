"""The orders of a shop, in place of the service that you have."""

_ORDERS = {
    1042: "is on its way, and arrives on Thursday",
    1043: "waits for its payment",
}


def find_order(order_id: int) -> str:
    """Find out where an order is.

    Args:
        order_id: The number of the order.
    """
    if order_id not in _ORDERS:
        raise ValueError(f"there is no order {order_id}")
    return f"order {order_id} {_ORDERS[order_id]}"
