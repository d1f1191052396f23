//! Compiles `ps.proto` in pure Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ps.proto");
    let descriptors = protox::compile(["ps.proto"], ["."])?;
    // `bytes` fields become `bytes::Bytes`: a received chunk is then never copied by the decoder.
    tonic_prost_build::configure().bytes(".hw2.ps.v1").compile_fds(descriptors)?;
    Ok(())
}
