//! A table of records in a memfd; the algorithm is in [`crate::record`].
//!
//! ```text
//!   0     header, twice: magic u64, layout version u64, kind u64, count << 32 | length u64
//!   4096  words u64 [count]
//!   ...   copies: 2 x stride [count], stride = header + length, rounded to 64
//! ```

use crate::crash::{self, Point};
use crate::error::ShmError;
use crate::mapped::header;
use crate::mapped::mapping::{self, Mapping};
use crate::record::{self, COPY_HEADER, Copies, Corrupt};
use crate::sync::{AtomicU64, Ordering};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use zerocopy::IntoBytes;

const MAGIC: u64 = u64::from_le_bytes(*b"STRATA-R");
const WORDS: usize = PAGE;
const PAGE: usize = 4096;

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLayout {
    /// Records.
    pub count: u32,
    /// Bytes of each.
    pub len: u32,
    /// Names the kind and version of the contents; another one is refused.
    pub kind: u64,
}

impl RecordLayout {
    const fn stride(&self) -> usize {
        (COPY_HEADER + self.len as usize).next_multiple_of(64)
    }

    const fn copies_offset(&self) -> usize {
        (WORDS + self.count as usize * 8).next_multiple_of(4096)
    }

    /// Bytes of the table (sparse).
    #[must_use]
    pub const fn size(&self) -> usize {
        self.copies_offset() + 2 * self.count as usize * self.stride()
    }
}

/// Makes the memory of a table, all records free.
///
/// # Errors
/// When the kernel refuses.
pub fn create(name: &str, layout: RecordLayout) -> Result<OwnedFd, ShmError> {
    mapping::create(name, layout.size())
}

/// An attached table.
#[derive(Debug)]
pub struct RecordTable {
    map: Mapping,
    layout: RecordLayout,
    /// Records that may have been in use when this process attached.
    written: Vec<Range<u32>>,
}

/// Runs of records whose words lie in pages that exist.
fn written(fd: &impl AsFd, layout: RecordLayout) -> Vec<Range<u32>> {
    const EACH: u32 = 512;
    const _: () = assert!(EACH as usize * 8 == PAGE);
    // Page by page: to ask for the next hole has the kernel look at all of the copies.
    let exists = |page: u32| {
        let at = WORDS + page as usize * PAGE;
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        match lseek(fd, at, Whence::SeekData) {
            Ok(data) => data == at,
            // There is nothing from here on; or the kernel cannot tell.
            Err(errno) => errno != Errno::ENXIO,
        }
    };
    (0..layout.count.div_ceil(EACH))
        .filter(|&page| exists(page))
        .map(|page| page * EACH..(page * EACH).saturating_add(EACH).min(layout.count))
        .collect()
}

struct Place<'a> {
    map: &'a Mapping,
    base: usize,
    stride: usize,
}

impl Copies for Place<'_> {
    fn write(&mut self, copy: usize, version: u64, crc: u32, bytes: &[u8]) {
        let at = self.base + copy * self.stride;
        let mut head = [0u8; COPY_HEADER];
        let fields = version.to_le_bytes().into_iter().chain(crc.to_le_bytes());
        for (to, from) in head.iter_mut().zip(fields) {
            *to = from;
        }
        let _ = self.map.copy_in(at, &head);
        let _ = self.map.copy_in(at + COPY_HEADER, bytes);
    }

    fn read(&self, copy: usize, into: &mut [u8]) -> (u64, u32) {
        let at = self.base + copy * self.stride;
        let (mut version, mut crc) = ([0; 8], [0; 4]);
        let _ = self.map.copy_out(at, &mut version);
        let _ = self.map.copy_out(at + 8, &mut crc);
        let _ = self.map.copy_out(at + COPY_HEADER, into);
        (u64::from_le_bytes(version), u32::from_le_bytes(crc))
    }
}

impl RecordTable {
    /// Attaches; a table that was never used is taken into use.
    ///
    /// # Errors
    /// When the memory is too small or holds another kind or version of records: the build that
    /// wrote it cannot be succeeded by this one.
    pub fn attach(fd: &impl AsFd, layout: RecordLayout) -> Result<Self, ShmError> {
        let map = Mapping::map(fd, layout.size(), true)?;
        let sizes = u64::from(layout.count) << 32 | u64::from(layout.len);
        let expected = [MAGIC, u64::from(abi::LAYOUT_VERSION), layout.kind, sizes];
        let mut header = [0; 4];
        let is_whole = header::load(&map, header.as_mut_bytes());
        if !is_whole && header == [0; 4] {
            if !header::store(&map, expected.as_bytes()) {
                return Err(ShmError::BadLayout("header of a record table"));
            }
        } else {
            let differs = header.into_iter().zip(expected).find(|(f, e)| f != e);
            if let Some((found, expected)) = differs {
                return Err(ShmError::Layout {
                    what: "record table",
                    found,
                    expected,
                });
            }
            if !is_whole {
                // Whatever the copies are, what they say is right.
                let _ = header::store(&map, expected.as_bytes());
            }
        }
        let written = written(fd, layout);
        Ok(Self {
            map,
            layout,
            written,
        })
    }

    /// The records to load when a predecessor is succeeded: all whose words were ever written, by
    /// what the kernel says of the sparse memory. Of a large table that is used little, that is
    /// little to look at.
    pub fn written(&self) -> impl Iterator<Item = u32> + '_ {
        self.written.iter().cloned().flatten()
    }

    /// Of those, the ones in use.
    pub fn in_use(&self) -> impl Iterator<Item = u32> + '_ {
        self.written().filter(|&index| {
            self.place(index)
                .is_some_and(|(word, _)| record::in_use(word.load(Ordering::Acquire)))
        })
    }

    fn place(&self, index: u32) -> Option<(&AtomicU64, Place<'_>)> {
        if index >= self.layout.count {
            return None;
        }
        let word = self.map.u64_at(WORDS + index as usize * 8)?;
        let stride = self.layout.stride();
        let base = self.layout.copies_offset() + 2 * index as usize * stride;
        Some((
            word,
            Place {
                map: &self.map,
                base,
                stride,
            },
        ))
    }

    /// Commits a record. `bytes` has the layout's length (else nothing happens).
    pub fn commit(&self, index: u32, bytes: &[u8]) {
        if bytes.len() == self.layout.len as usize
            && let Some((word, mut place)) = self.place(index)
        {
            record::commit(word, &mut place, bytes);
        }
    }

    /// Frees a record.
    pub fn clear(&self, index: u32) {
        if let Some((word, _)) = self.place(index) {
            record::clear(word);
            crash::reach_for(Point::RecordCleared, self.layout.len);
        }
    }

    /// Loads a record into `into` (of the layout's length): `Ok(false)` when it is free.
    ///
    /// # Errors
    /// [`Corrupt`]: reset this one alone.
    pub fn load(&self, index: u32, into: &mut [u8]) -> Result<bool, Corrupt> {
        match self.place(index) {
            Some((word, place)) if into.len() == self.layout.len as usize => {
                record::load(word, &place, into)
            }
            _ => Ok(false),
        }
    }

    /// Loads what a record was before its last commit; false when that cannot be told. See
    /// [`record::load_older`].
    #[must_use]
    pub fn load_older(&self, index: u32, into: &mut [u8]) -> bool {
        match self.place(index) {
            Some((word, place)) if into.len() == self.layout.len as usize => {
                record::load_older(word, &place, into)
            }
            _ => false,
        }
    }
}
