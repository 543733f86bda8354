//! The promise: where only signs are read of a pool, signs are what is pooled, and nothing else comes out.

use dirnet_engine::{Graph, Net, Node, Numbers, Op, Seen, Source, Then};
use dirnet_kernels::Conv;
use dirnet_kernels::bits::Pad;
use dirnet_kernels::norm_act::Activation;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 11.0 - 1.0).collect()
}

/// Images of five channels, an affine map, a pool, a binary convolution, its mean; the mean of the pool
/// beside it, if somebody is to read the pool as floats.
fn graph(pool: Op, pooled: usize, floats: bool) -> Graph {
    let fixed = |name: &str, shape: &[usize], seed| {
        Numbers::floats(name, shape, numbers(shape.iter().product(), seed))
    };
    let numbers = vec![
        fixed("a", &[5], 1),
        fixed("b", &[5], 2),
        fixed("weight", &[6, 5, 3, 3], 3),
        fixed("scale", &[6], 4),
    ];
    let node = |op, inputs: &[Source], shape: &[usize]| Node {
        op,
        inputs: inputs.to_vec(),
        layer: "layer".into(),
        shape: shape.to_vec(),
        axis: 0,
    };
    let (from, of) = (Source::Node, Source::Numbers);
    let conv = Op::BinConv2d { how: Conv::same(3), pad: Pad::Zero, then: Then::Scale };
    let mut nodes = vec![
        node(Op::Input, &[], &[1, 5, 7, 7]),
        node(Op::Affine { act: Activation::Hardtanh }, &[from(0), of(0), of(1)], &[1, 5, 7, 7]),
        node(pool, &[from(1)], &[1, 5, pooled, pooled]),
        node(conv, &[from(2), of(2), of(3)], &[1, 6, pooled, pooled]),
        node(Op::GlobalAvgPool, &[from(3)], &[1, 6]),
    ];
    if floats {
        nodes.push(node(Op::GlobalAvgPool, &[from(2)], &[1, 5]));
        nodes.push(node(Op::Concat, &[from(4), from(5)], &[1, 11]));
    }
    Graph { nodes, numbers }
}

#[test]
fn signs_are_pooled_where_signs_are_read() {
    let images = numbers(3 * 5 * 49, 5);
    for (pool, pooled) in [
        (Op::MaxPool2d { size: 2, stride: 2, pad: 0 }, 3),
        (Op::MaxPool2d { size: 3, stride: 2, pad: 1 }, 4),
        (Op::MaxPool2d { size: 3, stride: 1, pad: 1 }, 7),
    ] {
        let mut by_signs = Net::new(graph(pool, pooled, false), 3).unwrap();
        let mut by_floats = Net::new(graph(pool, pooled, true), 3).unwrap();
        let mut in_bits = false;
        let signs = by_signs.watch(&images, &mut |node, seen| {
            in_bits |= node == 2 && matches!(seen, Seen::Signs(_));
        });
        assert!(in_bits);
        let floats = by_floats.run(&images);
        for (signs, floats) in signs.chunks(6).zip(floats.chunks(11)) {
            assert_eq!(signs, &floats[..6], "{pool:?}");
        }
    }
}
