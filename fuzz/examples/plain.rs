//! Writes the seeds as the target `packed` takes them, into `corpus/packed`.

fn main() -> std::io::Result<()> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/packed");
    std::fs::create_dir_all(&dir)?;
    for (name, file) in dirnet_fuzz::SEEDS {
        let (header, arrays) = dirnet_fuzz::apart(file);
        let size = (header.len() as u32).to_le_bytes();
        std::fs::write(dir.join(name), [&size[..], &header, &arrays].concat())?;
    }
    Ok(())
}
