//! The same with the header as plain text, since an edited zlib stream hardly ever unpacks.
#![no_main]

use dirnet_engine::Packed;

libfuzzer_sys::fuzz_target!(|plain: &[u8]| {
    let Some((size, rest)) = plain.split_first_chunk() else { return };
    let Some((header, arrays)) = rest.split_at_checked(u32::from_le_bytes(*size) as usize) else {
        return;
    };
    if let Ok(packed) = Packed::from_bytes(&dirnet_fuzz::file(header, arrays)) {
        dirnet_fuzz::run(packed);
    }
});
