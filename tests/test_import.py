"""The package imports."""


def test_import():
    import widelimit

    assert widelimit.__doc__
