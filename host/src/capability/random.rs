//! `wasi:random`, seeded: the same numbers in every attempt with the same seed.
//!
//! ChaCha20 is specified, so the numbers are the same on every machine. They are no secret to whoever knows the seed:
//! real randomness is a grant of its own, and not here.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::limit::RANDOM_BYTES_MAX;

/// The generators of one attempt: one seed, a stream for each interface.
pub struct Random {
    secure: ChaCha20Rng,
    insecure: ChaCha20Rng,
    seed: (u64, u64),
}

impl Random {
    /// Generators of this seed.
    pub fn new(seed: [u8; 32]) -> Self {
        let stream = |number| {
            let mut generator = ChaCha20Rng::from_seed(seed);
            generator.set_stream(number);
            generator
        };
        let mut seeds = stream(2);
        Self { secure: stream(0), insecure: stream(1), seed: (seeds.next_u64(), seeds.next_u64()) }
    }
}

fn bytes(generator: &mut ChaCha20Rng, length: u64) -> wasmtime::Result<Vec<u8>> {
    wasmtime::ensure!(length <= RANDOM_BYTES_MAX, "{length} random bytes in one call, more than {RANDOM_BYTES_MAX}");
    let mut bytes = vec![0; length as usize];
    generator.fill_bytes(&mut bytes);
    Ok(bytes)
}

impl random::Host for Random {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(&mut self.secure, length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.secure.next_u64())
    }
}

impl insecure::Host for Random {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(&mut self.insecure, length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.insecure.next_u64())
    }
}

impl insecure_seed::Host for Random {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok(self.seed)
    }
}

#[cfg(test)]
mod tests {
    use insecure::Host as _;
    use insecure_seed::Host as _;
    use random::Host as _;

    use super::*;

    #[test]
    fn a_seed_decides_every_number_and_the_streams_differ() {
        let draw = |seed: u8| {
            let mut random = Random::new([seed; 32]);
            let secure = random.get_random_bytes(100).unwrap();
            let insecure = random.get_insecure_random_bytes(100).unwrap();
            assert_ne!(secure, insecure);
            (secure, insecure, random.get_random_u64().unwrap(), random.insecure_seed().unwrap())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_are_those_of_chacha20() {
        // RFC 8439 in its 64-bit counter form: the key stream of the all-zero key begins with these bytes.
        let bytes = Random::new([0; 32]).get_random_bytes(8).unwrap();
        assert_eq!(bytes, [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn a_call_returns_a_bounded_number_of_bytes() {
        let mut random = Random::new([0; 32]);
        assert_eq!(random.get_random_bytes(RANDOM_BYTES_MAX).unwrap().len() as u64, RANDOM_BYTES_MAX);
        assert!(random.get_random_bytes(RANDOM_BYTES_MAX + 1).is_err());
        assert!(random.get_insecure_random_bytes(u64::MAX).is_err());
    }
}
