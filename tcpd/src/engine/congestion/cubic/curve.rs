//! CUBIC's arithmetic in integers: windows are bytes, times nanoseconds. Exact to a byte, and the
//! same on every machine.

use abi::Nanos;

/// RFC 9438 4.6 and 5.1: the window is multiplied by 0.7 on congestion, and C = 0.4.
pub(super) const BETA: (u64, u64) = (7, 10);
/// C as a fraction.
const C: (u128, u128) = (4, 10);
/// (nanoseconds a second)^3.
const CUBED: u128 = 1_000_000_000_000_000_000_000_000_000;
/// Longest time that the curve is followed: beyond, the window is bounded by other things. An
/// hour, whose cube fits.
const LONGEST: Nanos = 3_600_000_000_000;

/// `bytes` times 0.7.
pub(super) fn reduced(bytes: u32) -> u32 {
    let (n, d) = BETA;
    (u64::from(bytes) * n / d) as u32
}

/// RFC 9438 4.7, fast convergence: `bytes` times (1 + 0.7) / 2.
pub(super) fn converged(bytes: u32) -> u32 {
    let (n, d) = BETA;
    (u64::from(bytes) * (n + d) / (2 * d)) as u32
}

/// RFC 9438 equation 2: how long the curve takes from `from` to `w_max`.
pub(super) fn inflection(w_max: u32, from: u32, mss: u32) -> Nanos {
    let gap = u128::from(w_max.saturating_sub(from));
    // segments / C seconds cubed
    let cubed = gap * CUBED / u128::from(mss.max(1)) * C.1 / C.0;
    cube_root(cubed)
}

/// RFC 9438 equation 1: the window `t` after the epoch's start.
pub(super) fn window(t: Nanos, k: Nanos, w_max: u32, mss: u32) -> u64 {
    let distance = u128::from(t.abs_diff(k).min(LONGEST));
    // C * (t - K)^3 segments. One billionth of the cube is let go, so that the product fits.
    let cube = distance * distance * distance / 1_000_000_000;
    let offset = cube * C.0 / C.1 * u128::from(mss) / (CUBED / 1_000_000_000);
    let offset = u64::try_from(offset).unwrap_or(u64::MAX);
    if t < k {
        u64::from(w_max).saturating_sub(offset)
    } else {
        u64::from(w_max).saturating_add(offset)
    }
}

/// The largest integer whose cube is at most `n`.
fn cube_root(n: u128) -> Nanos {
    let (mut low, mut high) = (0u64, 1 << 42);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if u128::from(middle).pow(3) <= n {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9438 4.2: the curve against the formula in floating point.
    #[test]
    fn the_curve_is_the_formula() {
        let mss = 1448;
        for (w_max, from) in [(100, 70), (1_000, 700), (40_000, 28_000), (5, 3)] {
            let k = inflection(w_max * mss, from * mss, mss);
            let expect_k = (f64::from(w_max - from) / 0.4).cbrt();
            assert!((k as f64 / 1e9 - expect_k).abs() < 1e-6, "{k} {expect_k}");
            for ms in [0, 10, 500, 1_000, 3_000, 10_000, 60_000u32] {
                let got = window(Nanos::from(ms) * 1_000_000, k, w_max * mss, mss) as f64;
                let t = f64::from(ms) / 1e3;
                let expect = (0.4 * (t - expect_k).powi(3) + f64::from(w_max)) * f64::from(mss);
                assert!(
                    (got - expect).abs() <= 2.0 + expect * 1e-6,
                    "{t}: {got} {expect}"
                );
            }
        }
    }

    #[test]
    fn the_ends_do_not_overflow() {
        assert!(inflection(u32::MAX, 0, 1) > 0);
        assert!(window(u64::MAX, 0, u32::MAX, 65_535) > u64::from(u32::MAX));
        assert_eq!(window(0, u64::MAX, 1, 65_535), 0);
        assert_eq!(cube_root(26), 2);
        assert_eq!(cube_root(27), 3);
    }
}
