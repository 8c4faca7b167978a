//! Headers of memories: written twice, each copy with a checksum, so that a word that something
//! wrote over keeps nobody from starting. Who attaches makes the bad copy good again.
//!
//! ```text
//!   0      contents (magic first), crc32 u32
//!   2048   the same
//! ```
//!
//! A header never changes after it was made; attachers that mend at the same time write the same.

use crate::mapped::mapping::Mapping;

/// Where the second copy is.
const SECOND: usize = 2048;

/// Writes a header. The second copy comes first: a memory whose first one is missing was never
/// taken into use.
pub(crate) fn store(map: &Mapping, contents: &[u8]) -> bool {
    let crc = crc32fast::hash(contents).to_le_bytes();
    [SECOND, 0]
        .into_iter()
        .all(|at| map.copy_in(at, contents) && map.copy_in(at + contents.len(), &crc))
}

/// Reads a header that [`store`] wrote into `contents`, from either copy; false when neither is
/// whole. `contents` is the first copy then, for the error's text.
pub(crate) fn load(map: &Mapping, contents: &mut [u8]) -> bool {
    if is_whole(map, 0, contents) {
        if !is_whole(map, SECOND, &mut vec![0; contents.len()]) {
            let _ = store(map, contents);
        }
        return true;
    }
    let mut second = vec![0; contents.len()];
    if !is_whole(map, SECOND, &mut second) {
        return false;
    }
    contents.copy_from_slice(&second);
    store(map, contents)
}

fn is_whole(map: &Mapping, at: usize, contents: &mut [u8]) -> bool {
    let mut crc = [0; 4];
    map.copy_out(at, contents)
        && map.copy_out(at + contents.len(), &mut crc)
        && contents.first() != Some(&0)
        && u32::from_le_bytes(crc) == crc32fast::hash(contents)
}
