//! The one place where messages become bytes and back.
//!
//! bincode 1 with a size limit and trailing bytes refused, on slices only: its other forms
//! believe a hostile length before they look at the data.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

/// Longest encoded message in bytes; also the size of receive buffers for requests.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A message could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct CodecError(#[from] bincode::Error);

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_limit(MAX_MESSAGE as u64)
        .reject_trailing_bytes()
}

/// Encodes `message`.
///
/// # Errors
/// When it is longer than [`MAX_MESSAGE`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    Ok(options().serialize(message)?)
}

/// Decodes exactly one message from `bytes`.
///
/// # Errors
/// When it is truncated, has trailing bytes or is not of the type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(options().deserialize(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let bytes = encode(&(7u32, "name".to_owned())).unwrap();
        assert_eq!(decode::<(u32, String)>(&bytes).unwrap().1, "name");
        assert!(decode::<(u32, String)>(&bytes[..bytes.len() - 1]).is_err());
        let mut longer = bytes;
        longer.push(0);
        assert!(decode::<(u32, String)>(&longer).is_err());
    }

    #[test]
    fn a_hostile_length_costs_nothing() {
        // A Vec that claims 2^62 elements.
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 62).to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
