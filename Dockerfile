# docker build -t cove .     docker run -v "$PWD:/work" cove train data=custom data.path=data/mine output=runs/mine
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[all]' && cove doctor --install cpu
WORKDIR /work
ENTRYPOINT ["cove"]
