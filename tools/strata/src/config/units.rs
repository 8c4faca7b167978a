//! Quantities as people write them: `500ms`, `100mbit`, `64KiB`, `1%`.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;
use core::time::Duration;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A duration: a number and `us`, `ms`, `s`, `min` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let seconds = match unit {
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "min" | "m" => number * 60.0,
            "h" => number * 3600.0,
            "" => {
                return Err(format!(
                    "`{text}` has no unit; write for example \"{text}ms\""
                ));
            }
            _ => return Err(format!("unknown unit `{unit}`; use us, ms, s, min or h")),
        };
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| format!("`{text}` is out of range"))
    }
}

/// A number of bytes: a number and nothing, `B`, `KiB`, `MiB` or `GiB` (also `K`, `M`, `G`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanSize(pub u64);

impl FromStr for HumanSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let scale = match unit {
            "" | "B" => 1.0,
            "K" | "KiB" => 1024.0,
            "M" | "MiB" => 1024.0 * 1024.0,
            "G" | "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("unknown unit `{unit}`; use B, KiB, MiB or GiB")),
        };
        whole(number * scale)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is out of range"))
    }
}

/// A number of bytes as [`HumanSize`], or a share of the machine's memory as a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MemoryShare {
    /// Bytes.
    Bytes(u64),
    /// 1 is all of it.
    Share(f64),
}

impl FromStr for MemoryShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('%') {
            let Probability(share) = text.parse()?;
            return Ok(Self::Share(share));
        }
        let HumanSize(bytes) = text.parse()?;
        Ok(Self::Bytes(bytes))
    }
}

/// A rate in kilobits per second: a number and `kbit`, `mbit` or `gbit`, as `tc` writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanRate(pub u64);

impl FromStr for HumanRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let scale = match unit {
            "kbit" => 1.0,
            "mbit" => 1e3,
            "gbit" => 1e6,
            _ => return Err(format!("unknown unit `{unit}`; use kbit, mbit or gbit")),
        };
        whole(number * scale)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is out of range"))
    }
}

/// A probability from 0 to 1, also written as a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probability(pub f64);

impl FromStr for Probability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text)?;
        let value = match unit {
            "%" => number / 100.0,
            "" => number,
            _ => {
                return Err(format!(
                    "`{text}` is not a probability; write 0.01 or \"1%\""
                ));
            }
        };
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(format!("`{text}` is not between 0 and 1 (0% and 100%)"))
        }
    }
}

/// The number in front and the unit behind.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number
        .replace('_', "")
        .parse()
        .map_err(|_| format!("`{text}` does not begin with a number"))?;
    Ok((number, unit.trim()))
}

fn whole(value: f64) -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked first"
    )]
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value.round() as u64)
}

/// Reads a string, or a bare number as if it had been a string.
struct Quantity<T>(PhantomData<T>, &'static str);

impl<T: FromStr<Err = String>> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! deserialize_quantity {
    ($type:ty, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Quantity::<Self>(PhantomData, $expecting))
            }
        }
    };
}

deserialize_quantity!(HumanDuration, "a duration such as \"500ms\"");
deserialize_quantity!(HumanSize, "a size such as \"4MiB\"");
deserialize_quantity!(
    MemoryShare,
    "a size such as \"512MiB\" or a share such as \"5%\""
);
deserialize_quantity!(HumanRate, "a rate such as \"100mbit\"");
deserialize_quantity!(Probability, "a probability such as 0.01 or \"1%\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(
            "500ms".parse::<HumanDuration>().unwrap().0,
            Duration::from_millis(500)
        );
        assert_eq!(
            "1.5 s".parse::<HumanDuration>().unwrap().0,
            Duration::from_millis(1500)
        );
        assert_eq!("4MiB".parse::<HumanSize>().unwrap().0, 4 << 20);
        assert_eq!("100mbit".parse::<HumanRate>().unwrap().0, 100_000);
        assert_eq!("1%".parse::<Probability>().unwrap().0, 0.01);
        assert_eq!("0.5".parse::<Probability>().unwrap().0, 0.5);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_remedy() {
        let text = "500".parse::<HumanDuration>().unwrap_err();
        assert!(text.contains("\"500ms\""), "{text}");
        assert!("ms".parse::<HumanDuration>().is_err());
        assert!("1e9h".parse::<HumanDuration>().is_err());
        assert!("5 furlongs".parse::<HumanSize>().is_err());
        assert!("9999999999G".parse::<HumanSize>().is_err());
        assert!("101%".parse::<Probability>().is_err());
        assert!("10".parse::<HumanRate>().is_err());
    }
}
