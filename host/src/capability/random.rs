//! `wasi:random`, seeded: the same numbers in every attempt with the same seed.
//!
//! ChaCha20 is specified, so the numbers are the same on every machine. Whether they are secret depends on the seed:
//! without a grant it is the job's recipe; with one it is drawn from the machine for each attempt.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::{Use, Used, Uses};
use crate::limit::RANDOM_BYTES_MAX;

/// The generators of one attempt: one seed, a stream for each interface.
pub struct Random {
    secure: ChaCha20Rng,
    insecure: ChaCha20Rng,
    seed: (u64, u64),
    /// The grant's name, when the seed is a real one.
    granted: Option<String>,
    uses: Uses,
}

impl Random {
    /// Generators of this seed, with the name of the grant when it was drawn for this attempt.
    pub fn new(seed: [u8; 32], granted: Option<String>) -> Self {
        let stream = |number| {
            let mut generator = ChaCha20Rng::from_seed(seed);
            generator.set_stream(number);
            generator
        };
        let mut seeds = stream(2);
        let seed = (seeds.next_u64(), seeds.next_u64());
        Self { secure: stream(0), insecure: stream(1), seed, granted, uses: Uses::of("random") }
    }

    /// How much real randomness was drawn.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.uses.take()
    }

    fn count(&mut self, operation: &'static str, bytes: u64) {
        if let Some(resource) = &self.granted {
            self.uses.record(Used { resource, operation, target: "", result: "ok", bytes });
        }
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
        let drawn = bytes(&mut self.secure, length)?;
        self.count("secure", length);
        Ok(drawn)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.count("secure", 8);
        Ok(self.secure.next_u64())
    }
}

impl insecure::Host for Random {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        let drawn = bytes(&mut self.insecure, length)?;
        self.count("insecure", length);
        Ok(drawn)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.count("insecure", 8);
        Ok(self.insecure.next_u64())
    }
}

impl insecure_seed::Host for Random {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.count("seed", 16);
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
            let mut random = Random::new([seed; 32], None);
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
        let bytes = Random::new([0; 32], None).get_random_bytes(8).unwrap();
        assert_eq!(bytes, [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn a_call_returns_a_bounded_number_of_bytes() {
        let mut random = Random::new([0; 32], None);
        assert_eq!(random.get_random_bytes(RANDOM_BYTES_MAX).unwrap().len() as u64, RANDOM_BYTES_MAX);
        assert!(random.get_random_bytes(RANDOM_BYTES_MAX + 1).is_err());
        assert!(random.get_insecure_random_bytes(u64::MAX).is_err());
    }

    #[test]
    fn only_real_randomness_is_recorded() {
        let draw = |granted: Option<&str>| {
            let mut random = Random::new([1; 32], granted.map(ToOwned::to_owned));
            random.get_random_bytes(100).unwrap();
            random.get_random_u64().unwrap();
            random.take_uses().into_iter().map(|used| (used.resource, used.calls, used.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(draw(None), []);
        assert_eq!(draw(Some("dice")), [("dice".to_owned(), 2, 108)]);
    }
}
