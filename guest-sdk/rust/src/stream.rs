//! `Read`, `BufRead` and `Seek` over a source that hands out chunks.
//!
//! Each chunk is as large as one call may move, so that streaming a gigabyte costs about a thousand calls; small
//! sources cost what they hold. There is no second buffer: [`BufRead::fill_buf`] is the chunk itself.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::host::{CALL_BYTES_MAX, HostResult};

/// Where the chunks come from.
pub(crate) trait Source {
    /// The bytes from this offset, at most `max`; empty at the end, and only there.
    fn read_at(&mut self, offset: u64, max: u32) -> HostResult<Vec<u8>>;

    /// How many bytes there are, where that is known.
    fn size(&self) -> Option<u64>;
}

/// A place in a source.
pub(crate) struct Stream<S> {
    source: S,
    chunk: Vec<u8>,
    /// The offset of the chunk's first byte.
    chunk_offset: u64,
    /// How much of the chunk has been consumed.
    consumed: usize,
}

impl<S: Source> Stream<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, chunk: Vec::new(), chunk_offset: 0, consumed: 0 }
    }

    fn position(&self) -> u64 {
        self.chunk_offset + self.consumed as u64
    }
}

impl<S: Source> BufRead for Stream<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.chunk.len() {
            let offset = self.position();
            self.chunk = self.source.read_at(offset, CALL_BYTES_MAX as u32)?;
            self.chunk_offset = offset;
            self.consumed = 0;
        }
        Ok(&self.chunk[self.consumed..])
    }

    fn consume(&mut self, amount: usize) {
        self.consumed = self.chunk.len().min(self.consumed + amount);
    }
}

impl<S: Source> Read for Stream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(buffer)?;
        self.consume(amount);
        Ok(amount)
    }

    fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let before = buffer.len();
        if let Some(size) = self.source.size() {
            buffer.reserve_exact(size.saturating_sub(self.position()) as usize);
        }
        loop {
            let chunk = self.fill_buf()?;
            if chunk.is_empty() {
                return Ok(buffer.len() - before);
            }
            buffer.extend_from_slice(chunk);
            let amount = chunk.len();
            self.consume(amount);
        }
    }
}

impl<S: Source> Seek for Stream<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(distance) => self.position().checked_add_signed(distance),
            SeekFrom::End(distance) => {
                let unknown = || io::Error::new(io::ErrorKind::Unsupported, "the size of a file is not known here");
                self.source.size().ok_or_else(unknown)?.checked_add_signed(distance)
            }
        };
        let target = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the start"))?;
        match target.checked_sub(self.chunk_offset) {
            Some(within) if within <= self.chunk.len() as u64 => self.consumed = within as usize,
            _ => {
                self.chunk = Vec::new();
                self.chunk_offset = target;
                self.consumed = 0;
            }
        }
        Ok(target)
    }
}

/// `Read` and `BufRead` of a public reader whose only field is its stream.
macro_rules! reads_its_stream {
    ($reader:ty) => {
        impl std::io::Read for $reader {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                std::io::Read::read(&mut self.0, buffer)
            }

            fn read_to_end(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
                std::io::Read::read_to_end(&mut self.0, buffer)
            }
        }

        impl std::io::BufRead for $reader {
            fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
                std::io::BufRead::fill_buf(&mut self.0)
            }

            fn consume(&mut self, amount: usize) {
                std::io::BufRead::consume(&mut self.0, amount);
            }
        }
    };
}

pub(crate) use reads_its_stream;

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up, and hands out at most 10 bytes a call, as a host under pressure may.
    struct Counting {
        calls: usize,
    }

    impl Source for Counting {
        fn read_at(&mut self, offset: u64, max: u32) -> HostResult<Vec<u8>> {
            self.calls += 1;
            Ok((offset..100).take(10.min(max as usize)).map(|byte| byte as u8).collect())
        }

        fn size(&self) -> Option<u64> {
            Some(100)
        }
    }

    #[test]
    fn reads_everything_over_many_chunks() {
        let mut bytes = Vec::new();
        Stream::new(Counting { calls: 0 }).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_short_way_within_the_chunk_costs_no_call() {
        let mut stream = Stream::new(Counting { calls: 0 });
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(stream.seek(SeekFrom::Current(4)).unwrap(), 5);
        stream.read_exact(&mut byte).unwrap();
        assert_eq!((byte, stream.source.calls), ([5], 1));
    }

    #[test]
    fn seeks_from_either_end() {
        let mut stream = Stream::new(Counting { calls: 0 });
        let mut rest = Vec::new();
        assert_eq!(stream.seek(SeekFrom::End(-2)).unwrap(), 98);
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [98, 99]);
        stream.seek(SeekFrom::Start(97)).unwrap();
        rest.clear();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [97, 98, 99]);
        assert_eq!(stream.seek(SeekFrom::End(-101)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
