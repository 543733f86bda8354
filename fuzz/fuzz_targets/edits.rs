//! A valid file whose header is edited as a structure: the input chooses the edits.
#![no_main]

libfuzzer_sys::fuzz_target!(|choices: &[u8]| {
    if let Ok(packed) = dirnet_fuzz::edited(choices) {
        dirnet_fuzz::run(packed);
    }
});
