#![no_main]

use swiftprune_wgpu::calibration::TOKENIZER_THREAD;

#[path = "../entry.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod entry;

libfuzzer_sys::fuzz_target!(
    init: {
        // libFuzzer ends at any panic. Those of the library for tokens are known, stay in their thread and become errors.
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(TOKENIZER_THREAD) {
                default(info);
            }
        }));
    },
    |bytes: &[u8]| entry::tokens(bytes)
);
