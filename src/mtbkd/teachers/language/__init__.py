"""Teachers that are language models: what they are asked, in memory and behind a server."""
