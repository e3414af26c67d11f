"""Settings are shown as short as they can be told apart, and nothing but numbers is shortened."""

from siamray.sweeps.setting_words import shown


def test_numbers_have_four_digits_and_all_else_stays() -> None:
    given = "a.rate=0.0017864470410639496 b=resnet14t c=12345678 d=[0.123456] e= flag"
    assert shown(given) == "a.rate=0.001786 b=resnet14t c=12345678 d=[0.123456] e= flag"
    assert shown("") == ""
