"""The paper's statements as data, one file a study: each with how our result is judged against it."""
