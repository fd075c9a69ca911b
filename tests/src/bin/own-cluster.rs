//! Owns the cluster of a state directory until its standard input ends: an owner for tests to kill.

use std::io::Read as _;

use flowstone::embedded::Cluster;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let state_dir = std::env::args_os().nth(1).ok_or_else(|| anyhow::anyhow!("usage: own-cluster STATE_DIR"))?;
    let cluster = Cluster::own(state_dir.as_ref()).await?;
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    cluster.stop().await?;
    Ok(())
}
