//! Arrays of the kernel as memory of this process: the only room here with unsafe access to shared memory.
//!
//! Must not know: which arrays there are. Programs on other CPUs read and add at the same time: everything goes through atomics,
//! word by word.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The places of an array map.
#[derive(Debug)]
pub(crate) struct Shared {
    start: NonNull<AtomicU32>,
    bytes: usize,
    /// Words of one place.
    stride: usize,
    places: u32,
}

// SAFETY: the memory is shared with the kernel anyway, is only reached through atomics, and stays mapped as long as this lives.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps an array of so many places (made with `BPF_F_MMAPABLE`).
    pub(crate) fn map(array: BorrowedFd<'_>, places: u32, value: usize) -> io::Result<Self> {
        // The kernel rounds each value up to eight bytes.
        let stride = value.div_ceil(8) * 2;
        let bytes = places as usize * stride * size_of::<u32>();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses; the result is checked.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, array.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, bytes, stride, places })
    }

    pub(crate) fn places(&self) -> u32 {
        self.places
    }

    /// How large the array is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// A word of a place.
    fn word(&self, place: u32, index: usize) -> Option<&AtomicU32> {
        if place >= self.places || index >= self.stride {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self` and is aligned to pages.
        Some(unsafe { self.start.add(place as usize * self.stride + index).as_ref() })
    }

    /// Two words of a place as one number.
    fn long(&self, place: u32, index: usize) -> Option<&AtomicU64> {
        if place >= self.places || index * 2 >= self.stride {
            return None;
        }
        // SAFETY: as above; a place begins at a multiple of eight bytes.
        Some(unsafe { self.start.add(place as usize * self.stride + index * 2).cast().as_ref() })
    }

    /// The words of a place; none if there is no such place.
    pub(crate) fn load<const N: usize>(&self, place: u32) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(place, index)?.load(Ordering::Relaxed);
        }
        Some(words)
    }

    /// Writes the words of a place; whether there is such a place.
    pub(crate) fn store(&self, place: u32, words: &[u32]) -> bool {
        words.iter().enumerate().all(|(index, value)| match self.word(place, index) {
            Some(word) => {
                // What changes in place changes in one word; the rest is there before anything leads to it.
                if word.load(Ordering::Relaxed) != *value {
                    word.store(*value, Ordering::Release);
                }
                true
            }
            None => false,
        })
    }

    /// Adds one to the first word of a place; whether there is such a place.
    pub(crate) fn raise(&self, place: u32) -> bool {
        self.word(place, 0).map(|word| word.fetch_add(1, Ordering::Release)).is_some()
    }

    /// The numbers in a place.
    pub(crate) fn numbers<const N: usize>(&self, place: u32) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = self.long(place, index)?.load(Ordering::Relaxed);
        }
        Some(numbers)
    }

    /// Sets all numbers of a place to 0.
    pub(crate) fn clear(&self, place: u32) {
        for index in 0..self.stride / 2 {
            if let Some(number) = self.long(place, index) {
                number.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Copies all places of a smaller array.
    pub(crate) fn copy_from(&self, other: &Self) {
        for place in 0..other.places.min(self.places) {
            for index in 0..self.stride.min(other.stride) {
                if let (Some(to), Some(from)) = (self.word(place, index), other.word(place, index)) {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        }
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Adds the numbers of all places of a smaller array, while programs add to these.
    pub(crate) fn add_from(&self, other: &Self) {
        for place in 0..other.places.min(self.places) {
            for index in 0..self.stride.min(other.stride) / 2 {
                if let (Some(to), Some(from)) = (self.long(place, index), other.long(place, index)) {
                    let count = from.load(Ordering::Relaxed);
                    if count != 0 {
                        to.fetch_add(count, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; nobody has a reference into it any more.
        let _result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
