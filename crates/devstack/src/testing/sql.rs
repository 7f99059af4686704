//! Statements beside those of the code under test, each on a connection of its own.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Runs a query that returns one number.
///
/// # Panics
///
/// If the query fails.
pub async fn query_number(url: &str, query: &str) -> i64 {
    let queried = async {
        let mut connection = PgConnection::connect(url).await?;
        let number = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok::<i64, sqlx::Error>(number)
    };
    queried.await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Executes statements.
///
/// # Panics
///
/// If a statement fails.
pub async fn execute(url: &str, statements: &str) {
    let executed = async {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await?;
        connection.close().await
    };
    executed.await.unwrap_or_else(|error| panic!("{statements}: {error}"));
}
