"""E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for centred Gaussians (u, v), in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpmath import mp, mpf

# (var u, var v, cov) -> (E[phi(u) phi(v)], E[phi'(u) phi'(v)])
Moments = Callable[[mpf, mpf, mpf], tuple[mpf, mpf]]


def _angle(p: mpf, q: mpf, k: mpf) -> tuple[mpf, mpf]:
    """sqrt(p q - k^2) and arcsin of the correlation (0 where a variance is 0)."""
    s = mp.sqrt(max(p * q - k * k, mpf(0)))
    return s, mp.atan2(k, s) if p > 0 and q > 0 else mpf(0)


def abrelu(a: float, b: float) -> Moments:
    """``a min(z, 0) + b max(z, 0) = m z + h |z|``; u|v| is odd, and E|u||v| = 2/pi (s + k arcsin(rho))."""
    m, h = (mpf(a) + mpf(b)) / 2, (mpf(b) - mpf(a)) / 2

    def moments(p, q, k):
        s, angle = _angle(p, q, k)
        if s == 0 and k != 0:  # (anti)parallel: |u||v| = |u v|; with a rounded pi an exact 0 would come out as 1e-160
            return m**2 * k + h**2 * abs(k), m**2 + h**2 * mp.sign(k)
        return m**2 * k + h**2 * 2 / mp.pi * (s + k * angle), m**2 + h**2 * 2 / mp.pi * angle

    return moments


def relu() -> Moments:
    return abrelu(0.0, 1.0)


def leaky_relu(slope: float) -> Moments:
    return abrelu(slope, 1.0)


def abs_() -> Moments:
    return abrelu(-1.0, 1.0)


def sign() -> Moments:
    return lambda p, q, k: (2 / mp.pi * _angle(p, q, k)[1], mpf(0))


def step() -> Moments:
    """``1 if z > 0 else 0``."""

    def moments(p, q, k):
        if not (p > 0 and q > 0):
            return mpf(0), mpf(0)
        s, angle = _angle(p, q, k)
        if s == 0:
            return mpf(1) / 2 if k > 0 else mpf(0), mpf(0)
        return mpf(1) / 4 + angle / (2 * mp.pi), mpf(0)

    return moments


def erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Moments:
    """``a erf(b z) + c`` (Williams 1997): erf(z) = 2 P(n < sqrt(2) z) - 1 makes the mean an orthant probability."""

    def moments(p, q, k):
        B = 2 * mpf(b) ** 2
        P, Q, K = 1 + B * p, 1 + B * q, B * k
        root = mp.sqrt(P * Q - K * K)
        return (
            mpf(a) ** 2 * 2 / mp.pi * mp.atan2(K, root) + mpf(c) ** 2,
            mpf(a) ** 2 * 4 * mpf(b) ** 2 / mp.pi / root,
        )

    return moments


def gelu() -> Moments:
    """``z Phi(z)``: Stein's lemma on E[u v Phi(u) Phi(v)], with D = (1 + p)(1 + q) - k^2, E[phi phi] = 1/(2 pi sqrt D).

    E[Phi Phi] = 1/4 + arcsin(k / sqrt((1+p)(1+q))) / (2 pi);  E[u phi(u) Phi(v)] = k E[phi phi] / (1 + p);
    E[u v phi(u) phi(v)] = E[phi phi] k / D.
    """

    def moments(p, q, k):
        D = (1 + p) * (1 + q) - k * k
        density = 1 / (2 * mp.pi * mp.sqrt(D))
        orthant = mpf(1) / 4 + mp.atan2(k, mp.sqrt(D)) / (2 * mp.pi)
        value = p * density * (q - k * k / (1 + p)) + k * orthant + k * k * density / (1 + q)
        slope = orthant + k * density * (1 / (1 + p) + 1 / (1 + q)) + density * k / D
        return value, slope

    return moments


def sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Moments:
    """``a sin(b z + c)``: 2 sin sin = cos(difference) - cos(sum), each the characteristic function of a Gaussian."""
    return _wave(a, b, lambda: mp.cos(2 * mpf(c)))


def cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Moments:
    """``a cos(b z + c)``."""
    return _wave(a, b, lambda: -mp.cos(2 * mpf(c)))


def _wave(a, b, cos_2c) -> Moments:
    def moments(p, q, k):
        b2, C = mpf(b) ** 2, cos_2c()
        minus, plus = mp.exp(-b2 * (p + q - 2 * k) / 2), mp.exp(-b2 * (p + q + 2 * k) / 2)
        return mpf(a) ** 2 * (minus - C * plus) / 2, mpf(a) ** 2 * b2 * (minus + C * plus) / 2

    return moments


def rbf(gamma: float = 1.0) -> Moments:
    """``sqrt(2) sin(sqrt(2 gamma) z + pi/4)``."""

    def moments(p, q, k):
        value = mp.exp(-mpf(gamma) * (p + q - 2 * k))
        return value, 2 * mpf(gamma) * value

    return moments


def exp(a: float = 1.0, b: float = 1.0) -> Moments:
    """``a exp(b z)``."""

    def moments(p, q, k):
        value = mpf(a) ** 2 * mp.exp(mpf(b) ** 2 * (p + q + 2 * k) / 2)
        return value, mpf(b) ** 2 * value

    return moments


def gaussian(a: float = 1.0, b: float = 1.0) -> Moments:
    """``a exp(-b z^2)``: a Gaussian integral; the derivatives bring down u v, whose mean is k / D under the tilt."""

    def moments(p, q, k):
        B = 2 * mpf(b)
        D = (1 + B * p) * (1 + B * q) - B * B * k * k
        value = mpf(a) ** 2 / mp.sqrt(D)
        return value, B * B * value * k / D

    return moments


def polynomial(coefficients: Sequence[float | mpf]) -> Moments:
    """``sum_j c_j z^j``: E[f(u) g(v)] = sum_n k^n / n! E[f^(n)(u)] E[g^(n)(v)] (Price), a finite sum."""
    c = [mpf(x) for x in coefficients]

    def mean(c, variance):
        # E[z^(2 i)] = (2 i - 1)!! variance^i
        return sum((x * mp.fac2(j - 1) * variance ** (j // 2) for j, x in enumerate(c) if j % 2 == 0), mpf(0))

    def slope(c):
        return [j * x for j, x in enumerate(c)][1:]

    def product(c, p, q, k):
        total, n, factor = mpf(0), 0, mpf(1)
        while c:
            total += factor * mean(c, p) * mean(c, q)
            n += 1
            factor *= k / n
            c = slope(c)
        return total

    return lambda p, q, k: (product(c, p, q, k), product(slope(c), p, q, k))


def hermite(degree: int) -> Moments:
    """``He_degree(z) / sqrt(degree!)``."""
    before: list[mpf] = []
    now = [mpf(1)]
    for j in range(degree):
        raised = [mpf(0), *now]
        lowered = [j * x for x in before] + [mpf(0)] * (len(raised) - len(before))
        before, now = now, [x - y for x, y in zip(raised, lowered, strict=True)]
    raw = polynomial(now)

    def moments(p, q, k):
        value, slope = raw(p, q, k)
        return value / mp.factorial(degree), slope / mp.factorial(degree)

    return moments


def rectified_monomial(degree: int) -> Moments:
    """``max(z, 0)^degree`` (Cho and Saul 2009): in polar coordinates of the plane the radius and the angle separate.

    E = (p q)^(n/2) 2^n n! / (2 pi) times the integral of (cos a cos(a - theta))^n over theta - pi/2 < a < pi/2.
    """

    def value(n, p, q, k):
        if not (p > 0 and q > 0):
            return mpf(0)
        s, _ = _angle(p, q, k)
        theta = mp.atan2(s, k)
        half = (mp.pi - theta) / 2  # the interval is centred at theta / 2
        # cos a cos(a - theta) = (cos theta + cos 2t) / 2 = sin(half + t) sin(half - t) with t = a - theta / 2
        integral = mp.quad(lambda t: (mp.sin(half + t) * mp.sin(half - t)) ** n, [-half, half])
        return mp.sqrt(p * q) ** n * 2**n * mp.factorial(n) / (2 * mp.pi) * integral

    def moments(p, q, k):
        return value(degree, p, q, k), degree**2 * value(degree - 1, p, q, k) if degree else mpf(0)

    return moments
