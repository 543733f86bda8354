//! What follows the checksum, as it is: lengths, compressed header, arrays.
#![no_main]

use dirnet_engine::Packed;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(packed) = Packed::from_bytes(&dirnet_fuzz::sealed(body)) {
        dirnet_fuzz::run(packed);
    }
});
