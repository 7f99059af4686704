//! The example at the head of the crate, on a real server.

use std::error::Error;

use tidings_devstack::testing;
use tidings_postgres::{Args, Fault, Postgres};

use super::support::{MIGRATIONS, SOON, execute};

#[tokio::test]
async fn the_example_of_the_documentation_holds() -> Result<(), Box<dyn Error>> {
    let url = testing::database(testing::shared().await, &MIGRATIONS, "postgres").await;
    let args = Args::new(url.parse()?);
    // A busy machine takes longer than a service would wait.
    let args = Args { postgres_acquire_timeout: SOON.into(), ..args };
    let postgres = Postgres::connect(&args, "orders").await?;
    postgres.run(async |connection| execute(connection, "CREATE TABLE handle (name text PRIMARY KEY)").await).await?;

    let claim = async |handle: &str| {
        let insert = sqlx::query("INSERT INTO handle (name) VALUES ($1)").bind(handle);
        postgres.run(async |connection| insert.execute(connection).await).await
    };
    claim("ada").await?;
    let again = claim("ada").await;
    assert!(matches!(again, Err(Fault::Unique(constraint)) if constraint == "handle_pkey"));
    Ok(())
}
