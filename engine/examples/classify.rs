//! Classifies pictures with a packed network, with nothing else in the program than the engine and a
//! decoder of pictures:
//!
//! ```text
//! cargo run --release -p dirnet-engine --example classify -- NET.dirnet PICTURE.png...
//! ```

use dirnet_datasets::Image;
use dirnet_engine::{Net, Packed};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("expected NET.dirnet PICTURE...")?;
    let Packed { card, graph } = Packed::from_bytes(&std::fs::read(&file)?)?;
    let &[channels, height, width] = graph.input() else { return Err("it takes no images".into()) };
    let mut pixels = vec![0.0; channels * height * width];
    let mut net = Net::new(graph, 1)?;
    for path in args {
        let picture = Image::open(Path::new(&path))?.with_channels(channels).resize(height, width);
        card.normalise(&picture.pixels, &mut pixels);
        let logits = net.run(&pixels);
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        println!("{path}: {}", best.map_or("?", |class| &card.classes[class]));
    }
    Ok(())
}
