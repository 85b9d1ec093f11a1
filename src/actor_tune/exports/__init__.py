"""The trained model for other programs, one file for each: a LoRA for PEFT and vLLM, a GGUF file for llama.cpp and for
Ollama, a folder for vLLM's server. What is exported answers the gate's prompts before it is given out. What trains or
chooses does not belong here.
"""
