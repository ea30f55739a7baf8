def install(torch, facts):
    pass
