"""The weather tool of ``specs/weather.yaml``: a stand-in for a weather service, the same for every city."""

from typing import Literal

_FAHRENHEIT = 85


def get_current_weather(city: str, state: str, unit: Literal["celsius", "fahrenheit"]) -> str:
    """Tell the weather in a city."""
    degrees = _FAHRENHEIT if unit == "fahrenheit" else round((_FAHRENHEIT - 32) / 1.8)
    return f"The weather in {city}, {state} is {degrees} degrees {unit}. It is partly cloudy."
