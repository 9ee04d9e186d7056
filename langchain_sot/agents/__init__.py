"""Final answers of agents with tools. Needs `langchain`: the extra `agents`."""
