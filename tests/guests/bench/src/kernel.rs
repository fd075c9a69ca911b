//! Plain computations over data that they make themselves, each with a checksum as its result: the same everywhere.
//!
//! They use no SIMD and no instruction that only some machines have, so that a component and a native program do the same
//! work. Nothing here is meant to be fast in itself.

/// One computation.
pub struct Kernel {
    /// As the asset is called, without `cpu_`.
    pub name: &'static str,
    /// How much it does where nobody says otherwise: some tenths of a second of native work.
    pub size: usize,
    /// Does so much, and gives its checksum.
    pub run: fn(usize) -> u64,
}

/// Parses a document of so many records.
pub const JSON: Kernel = Kernel { name: "json", size: 100_000, run: json };
/// Sorts so many numbers.
pub const SORT: Kernel = Kernel { name: "sort", size: 4_000_000, run: sort };
/// Hashes so many bytes.
pub const SHA256: Kernel = Kernel { name: "sha256", size: 64 << 20, run: sha256_of_numbers };
/// Multiplies square matrices of so many rows.
pub const MATMUL: Kernel = Kernel { name: "matmul", size: 512, run: matmul };

/// All of them.
pub const KERNELS: [&Kernel; 4] = [&JSON, &SORT, &SHA256, &MATMUL];

/// Numbers without a pattern, the same for the same seed (xorshift64*).
pub struct Numbers(u64);

impl Numbers {
    /// The seed is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Iterator for Numbers {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        Some(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D))
    }
}

/// So that the order of what is added counts.
fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23)
}

fn json(records: usize) -> u64 {
    let mut text = String::from("[");
    for (index, number) in Numbers::new(7).take(records).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let (id, share) = (number >> 40, (number % 100_000) as f64 / 1_000.0);
        text +=
            &format!(r#"{comma}{{"id":{id},"name":"record \"{index}\"","share":{share},"tags":["a","b",null,true]}}"#);
    }
    text.push(']');
    let parsed: serde_json::Value = serde_json::from_str(&text).expect("it was written as JSON above");
    weigh(&parsed)
}

fn weigh(value: &serde_json::Value) -> u64 {
    use serde_json::Value;
    match value {
        Value::Null => 1,
        Value::Bool(value) => 2 + u64::from(*value),
        Value::Number(number) => number.as_f64().map_or(4, f64::to_bits),
        Value::String(text) => text.bytes().fold(5, |sum, byte| mix(sum, byte.into())),
        Value::Array(items) => items.iter().fold(6, |sum, item| mix(sum, weigh(item))),
        Value::Object(fields) => fields.values().fold(7, |sum, item| mix(sum, weigh(item))),
    }
}

fn sort(count: usize) -> u64 {
    let mut numbers: Vec<u64> = Numbers::new(11).take(count).collect();
    numbers.sort_unstable();
    numbers.into_iter().fold(count as u64, mix)
}

fn matmul(rows: usize) -> u64 {
    let matrix = |seed| -> Vec<f64> { Numbers::new(seed).take(rows * rows).map(|n| (n % 1_000) as f64).collect() };
    let (a, b) = (matrix(13), matrix(17));
    let mut product = vec![0.0; rows * rows];
    for (row, sums) in a.chunks_exact(rows).zip(product.chunks_exact_mut(rows)) {
        for (factor, others) in row.iter().zip(b.chunks_exact(rows)) {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += factor * other;
            }
        }
    }
    product.into_iter().map(f64::to_bits).fold(rows as u64, mix)
}

fn sha256_of_numbers(bytes: usize) -> u64 {
    // A mebibyte again and again: making the bytes must not take the time.
    let block: Vec<u8> = Numbers::new(19).flat_map(u64::to_le_bytes).take(1 << 20).collect();
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let part = &block[..left.min(block.len())];
        hash.update(part);
        left -= part.len();
    }
    let digest = hash.finish();
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// FIPS 180-4, as it is written there.
struct Sha256 {
    state: [u32; 8],
    pending: Vec<u8>,
    length: u64,
}

impl Sha256 {
    fn new() -> Self {
        let state =
            [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
        Self { state, pending: Vec::new(), length: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let mut bytes = bytes;
        if !self.pending.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(64 - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() < 64 {
                return;
            }
            let block = std::mem::take(&mut self.pending);
            self.compress(&block);
        }
        let blocks = bytes.chunks_exact(64);
        self.pending.extend_from_slice(blocks.remainder());
        blocks.for_each(|block| self.compress(block));
    }

    fn finish(mut self) -> [u8; 32] {
        let bits = self.length * 8;
        let zeros = (64 + 56 - (self.length as usize + 1) % 64) % 64;
        self.update(&[&[0x80][..], &vec![0; zeros], &bits.to_be_bytes()].concat());
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    fn compress(&mut self, block: &[u8]) {
        let mut words = [0_u32; 64];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for t in 16..64 {
            let s0 = words[t - 15].rotate_right(7) ^ words[t - 15].rotate_right(18) ^ (words[t - 15] >> 3);
            let s1 = words[t - 2].rotate_right(17) ^ words[t - 2].rotate_right(19) ^ (words[t - 2] >> 10);
            words[t] = words[t - 16].wrapping_add(s0).wrapping_add(words[t - 7]).wrapping_add(s1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
        for (constant, word) in ROUND_CONSTANTS.iter().zip(words) {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let majority = (a & b) ^ (a & c) ^ (b & c);
            (h, g, f, e, d, c, b, a) =
                (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(s0.wrapping_add(majority)));
        }
        for (sum, word) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = sum.wrapping_add(word);
        }
    }
}

/// The first 32 bits of the fractions of the cube roots of the first 64 primes.
#[rustfmt::skip]
const ROUND_CONSTANTS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&[u8]]) -> String {
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finish().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        assert_eq!(hash(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hash(&[b"abc"]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(hash(&[&[b'a'; 1_000_000]]), million);
        assert_eq!(hash(&vec![&[b'a'; 1_000][..]; 1_000]), million);
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hash(&[two_blocks]), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }

    #[test]
    fn a_product_of_matrices_is_right() {
        // One row: the product is that of the two first numbers.
        let first = |seed| (Numbers::new(seed).next().unwrap() % 1_000) as f64;
        assert_eq!(matmul(1), mix(1, (first(13) * first(17)).to_bits()));
    }

    #[test]
    fn numbers_do_not_repeat_soon() {
        let mut numbers: Vec<u64> = Numbers::new(1).take(10_000).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 10_000);
    }
}
