//! Compiles `proto/` with protox, so that no protoc is needed, into messages, clients, servers and a descriptor set.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    collect(&root.join("tidings"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut served = descriptors.clone();
    for file in &mut served.file {
        // Comments are two thirds of the set; no reflection client shows them.
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;

    tonic_prost_build::configure()
        .codec_path("crate::Codec")
        .bytes(".")
        .btree_map(".") // so that equal messages have equal bytes
        .generate_default_stubs(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Adds every contract below `folder`.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
