//! The packed network beside the trained one, number by number.

use super::fold::fold;
use super::trace::{trace, values};
use crate::models::Model;
use crate::{Error, Params, Tensor};
use dirnet_engine::{Net, Packed, Seen};
use dirnet_kernels::bits::sign;

/// Where a packed network first computes something else than the trained one.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which image of the batch.
    pub image: usize,
    /// The layer, as its parameters are named.
    pub layer: String,
    /// The channel.
    pub channel: usize,
    /// Row and column within the channel, where there are some.
    pub pixel: [usize; 2],
    /// What the trained network computes: a sign where its sign is all that is read.
    pub trained: f32,
    /// What the packed one does.
    pub packed: f32,
}

/// Runs both networks on the same images, and compares each number that the packed one holds between its
/// steps: floats to the bit, signs as signs. The first difference, if there is one.
///
/// ```
/// use dirnet::deploy::{Floats, pack, verify};
/// use dirnet::models::Card;
/// use dirnet::{Rng, Tensor};
/// let card = Card {
///     version: "0.1.0".into(), arch: "mlp(hidden=24)".into(), method: "dir-net".into(),
///     estimator: String::new(), data: "digits".into(), input: [1, 8, 8],
///     classes: (0..10).map(|i| i.to_string()).collect(), mean: vec![0.0], std: vec![1.0],
/// };
/// let (params, model) = card.build(&mut Rng::seed(0))?;
/// let (packed, _) = pack(&params, &model, &card, Floats::F32, &[])?;
/// let images = Tensor::randn([3, 1, 8, 8], 1.0, &mut Rng::seed(1));
/// assert_eq!(verify(&params, &model, &packed, [images])?, None);
/// # Ok::<(), dirnet::Error>(())
/// ```
///
/// # Errors
/// If the packed network is none of this trained one: it has other operations.
pub fn verify(
    params: &Params,
    model: &Model,
    packed: &Packed,
    batches: impl IntoIterator<Item = Tensor>,
) -> Result<Option<Difference>, Error> {
    let folded = fold(&trace(params, model)?);
    let same = |(a, b): (&dirnet_engine::Node, &dirnet_engine::Node)| {
        (&a.op, &a.layer, &a.shape) == (&b.op, &b.layer, &b.shape)
    };
    let (ours, theirs) = (&folded.graph.nodes, &packed.graph.nodes);
    if ours.len() != theirs.len() || !ours.iter().zip(theirs).all(same) {
        let differs = ours.iter().zip(theirs).find(|pair| !same(*pair));
        let at = differs.map_or("its end", |(ours, _)| ours.layer.as_str());
        return Err(Error::Setting(format!(
            "the packed network is none of this run: it has other operations from {at} on"
        )));
    }
    let mut net: Option<Net> = None;
    for images in batches {
        let n = images.shape()[0];
        let net = match &mut net {
            Some(net) if net.batch() >= n => net,
            net => net.insert(
                Net::new(packed.graph.clone(), n).map_err(|e| Error::Setting(e.to_string()))?,
            ),
        };
        let trained = values(params, model, &images);
        let mut first = None;
        net.watch(&images, &mut |node, seen| {
            if first.is_none() {
                first = compare(&trained[folded.of[node]], &seen)
                    .map(|(at, trained, packed)| (node, at, trained, packed));
            }
        });
        if let Some((node, at, trained, packed)) = first {
            let node = &theirs[node];
            let (image, at) = (at / node.len(), at % node.len());
            let area: usize = node.shape.iter().skip(2).product();
            let width = node.shape.last().copied().filter(|_| node.shape.len() > 3).unwrap_or(1);
            let (channel, at) = (at / area, at % area);
            let (layer, pixel) = (node.layer.clone(), [at / width, at % width]);
            return Ok(Some(Difference { image, layer, channel, pixel, trained, packed }));
        }
    }
    Ok(None)
}

/// The first number that differs: its place, and both.
fn compare(trained: &Tensor, seen: &Seen<'_>) -> Option<(usize, f32, f32)> {
    let differ = |a: f32, b: f32| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    match seen {
        Seen::Floats(packed) => {
            let at = trained.iter().zip(*packed).position(|(&a, &b)| differ(a, b))?;
            Some((at, trained[at], packed[at]))
        }
        Seen::Signs(planes) => {
            let at = trained.iter().zip(planes.iter()).position(|(&a, b)| sign(a) != b)?;
            Some((at, sign(trained[at]), -sign(trained[at])))
        }
    }
}
