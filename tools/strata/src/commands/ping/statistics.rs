//! What became of echo requests, told as iputils tells it.

use abi::Nanos;
use core::net::IpAddr;
use serde::Serialize;

/// As iputils: three digits that matter.
pub(super) fn milliseconds(time: Nanos) -> String {
    let us = time / 1000;
    match us {
        0..1000 => format!("0.{us:03}"),
        1000..10_000 => format!("{}.{:02}", us / 1000, us % 1000 / 10),
        10_000..100_000 => format!("{}.{}", us / 1000, us % 1000 / 100),
        _ => (us / 1000).to_string(),
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    pub(super) transmitted: u64,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) errors: u64,
    pub(super) elapsed: Nanos,
    pub(super) rtts: Vec<Nanos>,
}

/// The same for programs; times in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    host: IpAddr,
    transmitted: u64,
    received: u64,
    duplicates: u64,
    errors: u64,
    time_ms: u64,
    rtt_min_ms: Option<f64>,
    rtt_avg_ms: Option<f64>,
    rtt_max_ms: Option<f64>,
    rtt_mdev_ms: Option<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "round trip times for people")]
impl Statistics {
    /// Smallest, mean, largest and mean deviation (the root of the mean square about the mean,
    /// as iputils has it), in milliseconds.
    fn rtt(&self) -> Option<[f64; 4]> {
        let ms: Vec<f64> = self.rtts.iter().map(|ns| *ns as f64 / 1e6).collect();
        let n = ms.len() as f64;
        let min = ms.iter().copied().reduce(f64::min)?;
        let max = ms.iter().copied().reduce(f64::max)?;
        let mean = ms.iter().sum::<f64>() / n;
        let variance = ms.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        Some([min, mean, max, variance.sqrt()])
    }

    fn loss_percent(&self) -> f64 {
        let lost = self.transmitted.saturating_sub(self.received);
        100.0 * lost as f64 / self.transmitted.max(1) as f64
    }

    /// As iputils ends its run.
    pub(super) fn render(&self, host: IpAddr) -> String {
        let mut text = format!("--- {host} ping statistics ---\n");
        text += &format!(
            "{} packets transmitted, {} received, ",
            self.transmitted, self.received
        );
        if self.duplicates > 0 {
            text += &format!("+{} duplicates, ", self.duplicates);
        }
        if self.errors > 0 {
            text += &format!("+{} errors, ", self.errors);
        }
        let loss = (self.loss_percent() * 1e4).round() / 1e4;
        let time = self.elapsed / 1_000_000;
        text += &format!("{loss}% packet loss, time {time}ms\n");
        if let Some([min, avg, max, mdev]) = self.rtt() {
            text += &format!("rtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms\n");
        }
        text
    }

    /// For programs.
    pub(super) fn summary(&self, host: IpAddr) -> Summary {
        let rtt = self.rtt();
        Summary {
            host,
            transmitted: self.transmitted,
            received: self.received,
            duplicates: self.duplicates,
            errors: self.errors,
            time_ms: self.elapsed / 1_000_000,
            rtt_min_ms: rtt.map(|[min, ..]| min),
            rtt_avg_ms: rtt.map(|[_, avg, ..]| avg),
            rtt_max_ms: rtt.map(|[_, _, max, _]| max),
            rtt_mdev_ms: rtt.map(|[.., mdev]| mdev),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_read_like_pings() {
        let statistics = Statistics {
            transmitted: 3,
            received: 2,
            duplicates: 1,
            errors: 1,
            elapsed: 2_004_000_000,
            rtts: vec![40_000, 60_000],
        };
        let host = IpAddr::from([10, 77, 0, 1]);
        insta::assert_snapshot!(statistics.render(host));
        let nothing = Statistics {
            transmitted: 1,
            ..Statistics::default()
        };
        assert!(
            nothing
                .render(host)
                .contains("1 packets transmitted, 0 received, 100% packet loss")
        );
    }

    #[test]
    fn times_have_three_digits() {
        let said = [41_000, 1_234_000, 12_340_000, 123_400_000].map(milliseconds);
        assert_eq!(said, ["0.041", "1.23", "12.3", "123"]);
    }
}
