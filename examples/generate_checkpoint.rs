//! Writes a checkpoint of random bf16 weights with TinyLlama-1.1B's shapes, and norms for it, to measure on.
//!
//! ```text
//! cargo run --release --example generate_checkpoint -- DIR [LAYERS [VOCABULARY]]
//! ```
//!
//! 22 layers and 32000 tokens (the default) are 2.2 GB.

use std::path::PathBuf;

use swiftprune_wgpu::bench::synthetic::{Shape, VOCABULARY, generate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(
        args.next()
            .ok_or("usage: generate_checkpoint DIR [LAYERS [VOCABULARY]]")?,
    );
    let layers: usize = args.next().map_or(Ok(22), |layers| layers.parse())?;
    let vocabulary = args
        .next()
        .map_or(Ok(VOCABULARY), |tokens| tokens.parse())?;
    let bytes = generate(&dir, &Shape::tiny_llama(layers, vocabulary))?;
    println!("{}: {bytes} bytes", dir.join("model.safetensors").display());
    Ok(())
}
