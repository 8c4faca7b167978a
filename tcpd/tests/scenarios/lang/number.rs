//! Numbers of a scenario: literal, named, or any.

use super::Parsed;
use std::collections::HashMap;

/// A number in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Num {
    /// `*`: whatever it is.
    Any,
    /// Relative to the initial sequence number where that makes sense.
    Lit(u32),
    /// `=N`: as on the wire.
    Wire(u32),
    /// `$name`, `$name+N`: what was seen where the name first stood.
    Named(String, u32),
}

impl Num {
    pub(crate) fn parse(text: &str) -> Parsed<Self> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(rest) = text.strip_prefix('$') {
            let split = rest.find(['+', '-']).unwrap_or(rest.len());
            let (name, shift) = rest.split_at(split);
            let shift = if shift.is_empty() { 0 } else { literal(shift)? };
            return Ok(Self::Named(name.to_owned(), shift));
        }
        if let Some(rest) = text.strip_prefix('=') {
            return literal(rest).map(Self::Wire);
        }
        literal(text).map(Self::Lit)
    }

    /// The value to send: relative to `base` unless it says otherwise.
    pub(crate) fn value(&self, base: u32, names: &HashMap<String, u32>) -> Parsed<u32> {
        match self {
            Self::Any => Err("`*` cannot be sent".to_owned()),
            Self::Lit(n) => Ok(base.wrapping_add(*n)),
            Self::Wire(n) => Ok(*n),
            Self::Named(name, shift) => names
                .get(name)
                .map(|v| base.wrapping_add(*v).wrapping_add(*shift))
                .ok_or_else(|| format!("`${name}` has not been seen yet")),
        }
    }

    /// Whether `value` (as on the wire, relative to `base`) is meant. A new name takes it.
    pub(crate) fn matches(&self, value: u32, base: u32, names: &mut HashMap<String, u32>) -> bool {
        let relative = value.wrapping_sub(base);
        match self {
            Self::Any => true,
            Self::Lit(n) => relative == *n,
            Self::Wire(n) => value == *n,
            Self::Named(name, shift) => {
                let known = *names.entry(name.clone()).or_insert(relative);
                relative == known.wrapping_add(*shift)
            }
        }
    }
}

fn literal(text: &str) -> Parsed<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let n = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => digits.replace('_', "").parse::<i64>().ok(),
    };
    n.filter(|n| (-(1 << 31)..1 << 32).contains(n))
        .map(|n| n as u32)
        .ok_or_else(|| format!("`{text}` is no number"))
}

/// `1.5`, `40ms`, `7us`, `3s`, `25d` in nanoseconds; without a unit it is seconds.
pub(crate) fn duration(text: &str) -> Parsed<u64> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "" | "s" => 1_000_000_000,
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "d" => 24 * 3_600 * 1_000_000_000,
        _ => return Err(format!("`{text}`: a time's unit is s, ms, us, ns or d")),
    };
    let bad = || format!("`{text}` is no time");
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| bad())?,
    };
    let mut nanos = whole.checked_mul(unit).ok_or_else(bad)?;
    let mut place = unit;
    for digit in part.chars() {
        place /= 10;
        nanos += u64::from(digit.to_digit(10).ok_or_else(bad)?) * place;
    }
    Ok(nanos)
}
